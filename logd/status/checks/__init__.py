"""`logd check`: facts are gathered in one place, judged in another, and told with what to do."""
