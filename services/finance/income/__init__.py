"""What the company earned, on which event and for which business unit."""
