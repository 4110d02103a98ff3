"""What was spent with whom, month by month, and what is still to be paid and for how long."""
