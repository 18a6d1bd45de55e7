"""Times, durations, and which reading of a clock is trusted. Pure."""
