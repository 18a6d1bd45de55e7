"""What is stored, as answers: named reports, exports, and all that is held about one person."""
