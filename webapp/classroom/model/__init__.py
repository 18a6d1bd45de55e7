"""What the site knows: accounts, courses, students' work, and logd's reports."""
