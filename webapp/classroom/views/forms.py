"""The login's form. The auditor's filter is in event_filter.py, a quiz's form in its template."""

from __future__ import annotations

from flask_wtf import FlaskForm
from wtforms import PasswordField, StringField
from wtforms.validators import InputRequired, Length

from webapp.classroom.model.accounts import LOGIN_CHARS_MAX, PASSWORD_CHARS_MAX


class LoginForm(FlaskForm):  # type: ignore[misc]  # flask_wtf has no types
    login = StringField(
        "Login name",
        [InputRequired("Enter your login name."), Length(max=LOGIN_CHARS_MAX)],
        render_kw={"autocomplete": "username", "autocapitalize": "none", "spellcheck": "false"},
    )
    password = PasswordField(
        "Password",
        [InputRequired("Enter your password."), Length(max=PASSWORD_CHARS_MAX)],
        render_kw={"autocomplete": "current-password"},
    )
