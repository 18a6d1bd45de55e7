"""Stores batches in the encrypted database, with what is kept beside the events."""
