"""What logging costs a page, by way of logging."""
