"""Flask extension that logs page views and the application's own events to logd.

    from flask import Flask
    from flask_logd import ActivityLog

    app = Flask(__name__)
    app.config["ACTIVITY_LOG_SOCKET"] = "/run/logd/logd.sock"
    activity = ActivityLog(app)  # in a factory: ActivityLog(), then activity.init_app(app)

    @app.post("/tasks/<int:task>/complete")
    def complete(task: int) -> str:
        activity.log("task_completed", task=task)
        return "done"

Every page view of a logged-in user becomes an event without any code in the view, and
`activity.log(event_type, **properties)` logs the rest. A call takes microseconds: it does not wait
for the daemon and does not raise in production. What it accepts is stored even if the web process
or the daemon is killed. No response is changed by a single byte.

Reference
=========

Settings
--------
`init_app` reads them once. An unknown key that begins with `ACTIVITY_LOG_` is an error that names
the nearest known one.

| key | default | meaning |
|---|---|---|
| `ACTIVITY_LOG_SOCKET` | required | path of logd's datagram socket, at most 107 bytes |
| `ACTIVITY_LOG_ENABLED` | `True` | `False` logs nothing, and needs no socket |
| `ACTIVITY_LOG_EXCLUDE` | `("static", "*.static")` | endpoints, blueprints or patterns not logged |
| `ACTIVITY_LOG_USER` | Flask-Login's user | callable that returns the request's user or None |
| `ACTIVITY_LOG_ACTOR` | `None` | callable that returns who acts for the user, or None |
| `ACTIVITY_LOG_REQUEST_ID_HEADER` | `"X-Request-ID"` | header whose value becomes `request_id` |
| `ACTIVITY_LOG_OUTBOX_BYTES` | the client's | memory for events not yet on disk |
| `ACTIVITY_LOG_OUTBOX_DIRECTORY` | found by the socket | directory of the outbox |
| `ACTIVITY_LOG_DURABLE` | `()` | event types for which `log` waits for the disk |
| `ACTIVITY_LOG_DURABLE_TIMEOUT_S` | `5.0` | how long it waits, in seconds |
| `ACTIVITY_LOG_DURABLE_UNKNOWN` | `"carry_on"` | `"tell_user"` flashes a message on timeout |
| `ACTIVITY_LOG_DURABLE_MESSAGE` | a sentence | that message |
| `ACTIVITY_LOG_CLIENT` | `logd_client.Client` | callable that creates the client; for tests |

Page views
----------
An event `page_view` has the properties `route`, `endpoint`, `method`, `status`, `duration_ms` and
`request_id`. A request without a user is not logged. A request that ends in an exception is logged
with status 500.

All events of a request have the same `request_id`: the value of the request's header if that is 1
to 64 letters, digits, dots, hyphens or underscores, otherwise a random one.

Users
-----
A user is text, a whole number, an object whose `get_id()` returns one of them (Flask-Login's
protocol), or a proxy for such an object, like `current_user`. Any other object is refused and
counted as `malformed`; while the app is testing or debugging it raises. Convert a UUID to text.

A request belongs to the first user known in it: a logout to the user who left, a switch from one
user to another to the first of them, a login to the user who logged in.
`ACTIVITY_LOG_USER` is called when the request begins (an exception counts as None then) and once
for each event.

Properties name the other person when one user acts for another:

| property | present when | value |
|---|---|---|
| `switched_to` | the request switched users | the user who is logged in now |
| `actor` | the request switched users | what `ACTIVITY_LOG_ACTOR` returns, or the first user |
| `actor` | `ACTIVITY_LOG_ACTOR` returns another user than the event's | that user |

An application whose administrators can act as another user keeps the administrator's id in the
session and returns it from `ACTIVITY_LOG_ACTOR`. Every event then names both; without the setting
only those of the request that switches do. A property `actor` given to `log` takes precedence.

Durable events
--------------
For a durable event `activity.log` returns an `Outcome`:

| outcome | true | meaning |
|---|---|---|
| `STORED` | yes | the event is on disk |
| `REFUSED` | no | the event was not accepted; `stats()` has the cause |
| `UNKNOWN` | no | the event was accepted, but its storage was not confirmed before the timeout |

An unknown outcome is logged: an event `durable_unknown` before the call returns, and once more is
known an event `durable_settled` before the client's next event. It is also counted, in
`stats()["durable"]["unknown"]`. With `"tell_user"` the extension flashes the message (category
"warning"), and `durable_unknown` records that the user was told. A view that returns no page, or
has a better message, uses the outcome:

    outcome = activity.log("quiz_submitted", quiz=3, score=0.8)
    if outcome is Outcome.REFUSED:
        flash("Your result is saved, but it is not in the school's record.")

Tests
-----
`ACTIVITY_LOG_CLIENT` replaces the client, so that a test sees what its application logs and opens
no socket. `ActivityClient` lists the methods of such a client, `ClientFactory` its arguments.

    app = create_app({"TESTING": True, "ACTIVITY_LOG_CLIENT": RecordingClient})
"""

from flask_logd.client import ActivityClient, ClientFactory
from flask_logd.extension import ActivityLog
from flask_logd.settings import ConfigError
from logd_client import Outcome

__all__ = ["ActivityClient", "ActivityLog", "ClientFactory", "ConfigError", "Outcome"]
