"""One folder per service, all alike; none imports another."""
