"""The Classroom: a Flask site for courses."""
