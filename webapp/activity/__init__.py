"""`ActivityLog`: a Flask extension that logs page views and what an application tells it.

    activity = ActivityLog()

    def create_app() -> Flask:
        app = Flask(__name__)
        app.config["ACTIVITY_LOG_SOCKET"] = "/run/logd/logd.sock"
        activity.init_app(app)
        return app

Every page view of a user who is logged in becomes an event, without the handler's help and without
a byte of any response changed; `activity.log("task_completed", task=12)` does the rest. Nothing
here waits for the daemon but a durable event, and nothing here fails a request.

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
| `ACTIVITY_LOG_DURABLE` | `()` | types of events that are durable: `log` waits for the disk |
| `ACTIVITY_LOG_DURABLE_TIMEOUT_S` | `5.0` | how long at most, in seconds |
| `ACTIVITY_LOG_DURABLE_UNKNOWN` | `"carry_on"` | or `"tell_user"`: when the time is over |
| `ACTIVITY_LOG_DURABLE_MESSAGE` | a sentence | what the user is told then |
| `ACTIVITY_LOG_CLIENT` | `shared.client.Client` | callable that makes the app's client; for tests |

**Durable events.** `activity.log` of a durable type returns an `Outcome`, of which only `STORED` is
true. `UNKNOWN` means that the event is accepted, and the disk did not answer in time. With
`"carry_on"` the page goes on and the case is counted: `stats()["durable"]["unknown"]`. With
`"tell_user"` the message is flashed as well (category "warning"), so the app's next page shows it
as it shows every other; and the trail says that the user was told. Either way an event
`durable_unknown` stands behind the event in the trail, before the page is sent, and the next event
of the process after it is known says `durable_settled`. A view that answers without a page, or has
better words, asks the outcome:

    outcome = activity.log("quiz_submitted", quiz=3, score=0.8)
    if outcome is Outcome.REFUSED:
        flash("Your result is kept, but it is not in the record.")

A test that wants to see what its application logs, and open no socket, brings a client of its own:

    app = create_app({"TESTING": True, "ACTIVITY_LOG_CLIENT": RecordingClient})

`ActivityClient` says what such a client must have, `ClientFactory` with what it is called.
"""

from shared.client import Outcome
from webapp.activity.client import ActivityClient, ClientFactory
from webapp.activity.extension import ActivityLog
from webapp.activity.settings import ConfigError

__all__ = ["ActivityClient", "ActivityLog", "ClientFactory", "ConfigError", "Outcome"]
