"""What tests of several kinds need: real parts, one per run, and a way to wait on a state."""
