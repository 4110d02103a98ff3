"""Kafka: how to reach it, what bootstrap brings it to, and whether a service's topics are as declared."""
