"""What a company divides its expenses into: a list of its own."""
