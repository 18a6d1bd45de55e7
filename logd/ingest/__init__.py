"""Receives datagrams, reads outboxes, orders events per producer, and collects a batch."""
