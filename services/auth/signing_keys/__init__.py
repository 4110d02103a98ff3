"""The keys access tokens are signed with."""
