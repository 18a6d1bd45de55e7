"""What logging costs, measured: README.md says what there is and how to read it."""
