"""What is posted: the same for expenses, bills and income."""
