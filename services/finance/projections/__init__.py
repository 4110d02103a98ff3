"""Read-only copies of what other services publish."""
