"""The daemon: owns the encrypted database, takes in events, keeps the sums."""

__version__ = "0.1.0"
