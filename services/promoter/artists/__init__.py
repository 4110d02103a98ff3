"""Who plays: reference data of the company, under the names that stand on posters."""
