"""Reports, ingest, disk and recovery as the trail grows."""
