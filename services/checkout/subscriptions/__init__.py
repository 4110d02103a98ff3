"""What a company has bought and for how long, and its trials."""
