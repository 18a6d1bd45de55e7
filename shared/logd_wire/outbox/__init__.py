"""The outbox: a producer's ring of records in shared memory, read by the daemon."""
