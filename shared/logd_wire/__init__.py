"""The formats that clients and the daemon share: events, wire, outboxes, reports."""
