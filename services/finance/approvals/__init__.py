"""Who may decide about what is spent; the same for expenses and bills."""
