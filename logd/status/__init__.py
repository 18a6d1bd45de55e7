"""The state of an instance: collected, as text, as metrics, and checked."""
