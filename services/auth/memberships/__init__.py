"""Who belongs to which company."""
