"""The logd daemon: receives events and stores them in an encrypted database."""

__version__ = "0.1.0"
