"""Sign-in, access tokens and refresh tokens."""
