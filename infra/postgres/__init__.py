"""PostgreSQL: one engine per service, one transaction per unit of work, one database with two roles per service."""
