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
| `ACTIVITY_LOG_USER` | Flask-Login | callable: the request's user, or None while there is none |
| `ACTIVITY_LOG_ACTOR` | `None` | callable: the user who really acts, or None: see below |
| `ACTIVITY_LOG_REQUEST_ID_HEADER` | `"X-Request-ID"` | taken over when it looks like an id |
| `ACTIVITY_LOG_OUTBOX_BYTES` | the client's | room for events not yet on the disk, in bytes |
| `ACTIVITY_LOG_OUTBOX_DIRECTORY` | found from the socket | where the outbox lies |
| `ACTIVITY_LOG_DURABLE` | `()` | types of events that are durable: `log` waits for the disk |
| `ACTIVITY_LOG_DURABLE_TIMEOUT_S` | `5.0` | how long at most, in seconds |
| `ACTIVITY_LOG_DURABLE_UNKNOWN` | `"carry_on"` | or `"tell_user"`: when the time is over |
| `ACTIVITY_LOG_DURABLE_MESSAGE` | a sentence | what the user is told then |
| `ACTIVITY_LOG_CLIENT` | `logd_client.Client` | callable that makes the app's client; for tests |

**Whose an event is.** A user is text, a whole number, or an object whose `get_id()` returns one of
them (Flask-Login's protocol; also behind a proxy such as `current_user`), wherever one is given: to
`activity.log(user=...)` and by both callables. Any other object is refused and counted as
`malformed` (raised while testing or debugging); turn a UUID into text yourself. A request belongs
to the user whom it began with: a log-out to the user who left, a request that switches from one
user to another to the first. A log-in begins with none, and belongs to the user who logged in.
`ACTIVITY_LOG_USER` is called as the request begins (an error counts as None then) and for each
event.

Properties of the event say who acts for whom:

| property | when | |
|---|---|---|
| `switched_to` | the request has switched users | the user who is logged in now |
| `actor` | the same | the user it began with, or as below |
| `actor` | `ACTIVITY_LOG_ACTOR` returns another user than the event's | that one |

So an application whose administrators can look at it as someone else keeps in the session who they
are, and has `ACTIVITY_LOG_ACTOR` return that: every event of that session then names both. Without
it only the switching request does. A property `actor` of the application's own takes precedence.

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

from flask_logd.client import ActivityClient, ClientFactory
from flask_logd.extension import ActivityLog
from flask_logd.settings import ConfigError
from logd_client import Outcome

__all__ = ["ActivityClient", "ActivityLog", "ClientFactory", "ConfigError", "Outcome"]
