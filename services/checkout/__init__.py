"""Checkout: what a company paid for."""
