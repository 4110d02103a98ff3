"""What the payment provider reports."""
