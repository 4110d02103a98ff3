"""What a person may do, and why not the rest."""
