"""What is put on: when, where, how far its planning is."""
