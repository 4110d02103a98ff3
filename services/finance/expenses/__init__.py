"""What was spent, on which event and for which business unit."""
