"""From what arrives to a batch: receives datagrams, reads outboxes, orders events per producer."""
