"""The checks of `logd check`: facts are gathered first, then judged by pure functions."""
