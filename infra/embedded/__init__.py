"""A real PostgreSQL and a real Apache Kafka from packages, on loopback, in one state folder (design §7).

`StateFolder` holds everything that must survive a restart, `EmbeddedPostgres` and `EmbeddedKafka` prepare and describe
their server process, `Supervisor` runs the processes, `checks` says what would stop them.
"""
