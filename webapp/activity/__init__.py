"""`ActivityLog`: a Flask extension that logs page views and what an application tells it.

    activity = ActivityLog()

    def create_app() -> Flask:
        app = Flask(__name__)
        app.config["ACTIVITY_LOG_SOCKET"] = "/run/logd/logd.sock"
        activity.init_app(app)
        return app

Every page view of a user who is logged in becomes an event, without the handler's help and without
a byte of any response changed; `activity.log("task_completed", task=12)` does the rest. Nothing
here waits for the daemon, and nothing here fails a request.

Settings, read once by `init_app` (an unknown `ACTIVITY_LOG_*` key is an error that names it):

| key | default | |
|---|---|---|
| `ACTIVITY_LOG_SOCKET` | required | path of logd's datagram socket, at most 107 bytes |
| `ACTIVITY_LOG_ENABLED` | `True` | `False`: nothing is logged, and no socket is needed |
| `ACTIVITY_LOG_EXCLUDE` | `("static", "*.static")` | endpoints, blueprints, patterns: not logged |
| `ACTIVITY_LOG_USER` | Flask-Login | callable: the id of the request's user, or None |
| `ACTIVITY_LOG_REQUEST_ID_HEADER` | `"X-Request-ID"` | taken over when it looks like an id |
| `ACTIVITY_LOG_OUTBOX_BYTES` | the client's | room for events not yet on the daemon's disk |
| `ACTIVITY_LOG_OUTBOX_DIRECTORY` | found from the socket | where the outbox lies |
| `ACTIVITY_LOG_CLIENT` | `shared.client.Client` | callable that makes the app's client; for tests |

A test that wants to see what its application logs, and open no socket, brings a client of its own:

    app = create_app({"TESTING": True, "ACTIVITY_LOG_CLIENT": RecordingClient})

`ActivityClient` says what such a client must have, `ClientFactory` with what it is called.
"""

from webapp.activity.client import ActivityClient, ClientFactory
from webapp.activity.extension import ActivityLog
from webapp.activity.settings import ConfigError

__all__ = ["ActivityClient", "ActivityLog", "ClientFactory", "ConfigError"]
