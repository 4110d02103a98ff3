"""The read side of access, for people and operators; no module asks it."""
