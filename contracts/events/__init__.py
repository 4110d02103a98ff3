"""The events, one module per owner; their types hold owner, fact and major version."""
