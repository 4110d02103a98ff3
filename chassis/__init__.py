"""What a service is made of."""
