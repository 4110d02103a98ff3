"""The exchange rates a company reckons with, day by day."""
