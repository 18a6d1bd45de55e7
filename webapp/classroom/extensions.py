"""The Flask extensions, created once and bound to each app by the factory."""

from __future__ import annotations

from flask_login import LoginManager
from flask_wtf import CSRFProtect

from flask_logd import ActivityLog

login_manager = LoginManager()
csrf = CSRFProtect()
activity = ActivityLog()
