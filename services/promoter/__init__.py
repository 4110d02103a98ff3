"""Promoter: the base backend of promoters, and the owner of the entities all modules share."""
