"""The state of an instance: collected, shown as text and as metrics, and checked."""
