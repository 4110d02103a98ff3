"""The instances that decide, and whether each has applied a state."""
