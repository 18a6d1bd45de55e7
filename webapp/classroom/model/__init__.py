"""Accounts, courses, students' work, the login throttle, and logd's reports."""
