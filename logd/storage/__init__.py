"""From a batch to the encrypted database, and what is kept beside the events."""
