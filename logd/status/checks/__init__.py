"""The checks of `logd check`: facts are gathered first, then pure functions judge them."""
