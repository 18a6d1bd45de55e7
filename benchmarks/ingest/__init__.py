"""Part `ingest`: how many events per second the daemon stores, and at what CPU time."""
