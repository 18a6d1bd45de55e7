"""The daemon: owns the encrypted database, takes in events, keeps the totals."""

__version__ = "0.1.0"
