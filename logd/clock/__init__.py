"""Times, durations, and which reading of a clock may be believed. Pure."""
