"""Answers from stored data: named reports, exports, and all data about one person."""
