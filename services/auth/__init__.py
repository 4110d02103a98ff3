"""Auth: who a person is, which companies they belong to, and what they were granted."""
