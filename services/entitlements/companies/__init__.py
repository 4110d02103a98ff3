"""What each company is entitled to."""
