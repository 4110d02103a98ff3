"""The `kisum` command."""
