"""Envelope, errors, problems."""
