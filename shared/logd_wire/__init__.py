"""What the web process and the daemon must agree on: events, wire, outboxes, reports."""
