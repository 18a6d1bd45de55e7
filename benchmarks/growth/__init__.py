"""Parts `query` and `recovery`: reports, ingest, disk and recovery as the trail grows."""
