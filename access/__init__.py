"""The access path: records, cache, feed, freshness, scopes, decision and digest (design §5)."""
