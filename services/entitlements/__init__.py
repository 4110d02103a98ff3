"""Core: the module catalog, and what each company is entitled to."""
