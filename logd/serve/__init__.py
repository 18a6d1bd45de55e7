"""The two processes of `logd run`: the daemon and the report server."""
