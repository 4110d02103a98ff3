"""Compatibility of what crosses a boundary: schemas, golden examples, topics, permission rows."""
