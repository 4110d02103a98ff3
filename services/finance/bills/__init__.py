"""What others ask the company to pay, until it is paid."""
