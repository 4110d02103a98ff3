"""Proof of behaviour; each folder is one kind of test (design §8)."""
