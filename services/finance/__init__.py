"""Finance: what a company spends and earns on its events."""
