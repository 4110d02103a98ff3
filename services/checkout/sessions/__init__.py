"""Checkout sessions: what a company is about to buy, and for how much."""
