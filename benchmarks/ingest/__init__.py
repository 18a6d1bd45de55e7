"""How many events a second the daemon stores."""
