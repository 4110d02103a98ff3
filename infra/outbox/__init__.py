"""The outbox (design §4): an event is written with the change it tells of, and a relay brings it to Kafka."""
