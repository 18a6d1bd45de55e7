"""Part `request`: what logging costs a page, for every way of logging."""
