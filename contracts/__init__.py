"""What crosses a boundary between services: events, topics, permission rows, codes and value types. Data only."""
