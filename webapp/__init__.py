"""The Classroom: a Flask site for courses, and the Flask extension that logs what happens on it."""

from webapp.classroom.factory import create_app

__all__ = ["create_app"]
