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

Every request of a logged-in user becomes an event without any code in the view, and
`activity.log(event_type, **properties)` logs the rest; `@activity.logged("task_completed")` does so
each time a view succeeds, and `activity.context(user=...)` names the user of a job. A call takes
microseconds: it does not wait for the daemon and does not raise in production. What it accepts is
stored even if the web process or the daemon is killed. No response is changed by a single byte.

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
| `ACTIVITY_LOG_METHODS` | `"all"` | methods of requests that are logged: `["GET", "POST"]` |
| `ACTIVITY_LOG_STATUSES` | `"all"` | statuses of requests that are logged: `[200, "4xx"]` |
| `ACTIVITY_LOG_ANONYMOUS` | `False` | `True` also logs requests without a user |
| `ACTIVITY_LOG_VIEW_ARGS` | `()` | names of arguments of the URL that are logged, or `"all"` |
| `ACTIVITY_LOG_EXTRA` | `None` | callable that returns more properties for a request's events |
| `ACTIVITY_LOG_FILTER` | `None` | callable that redacts, drops or samples events |
| `ACTIVITY_LOG_USER` | Flask-Login's user | callable that returns the request's user or None |
| `ACTIVITY_LOG_ACTOR` | `None` | callable that returns who acts for the user, or None |
| `ACTIVITY_LOG_REQUEST_ID_HEADER` | `"X-Request-ID"` | header whose value becomes `request_id` |
| `ACTIVITY_LOG_OUTBOX_BYTES` | the client's | memory for events not yet on disk |
| `ACTIVITY_LOG_OUTBOX_DIRECTORY` | found by the socket | directory of the outbox |
| `ACTIVITY_LOG_DURABLE` | `()` | event types for which `log` waits for the disk |
| `ACTIVITY_LOG_DURABLE_TIMEOUT_S` | `5.0` | how long it waits, in seconds |
| `ACTIVITY_LOG_DURABLE_WAITERS` | 2 | threads of a process that wait that long while logd hangs |
| `ACTIVITY_LOG_DURABLE_UNKNOWN` | `"carry_on"` | `"tell_user"` flashes a message on timeout |
| `ACTIVITY_LOG_DURABLE_MESSAGE` | a sentence | that message |
| `ACTIVITY_LOG_CLIENT` | `logd_client.Client` | callable that creates the client; for tests |

Requests
--------
The answer to a request decides the type of its event: only a GET that showed a page is a page view.

| type | the request |
|---|---|
| `page_view` | a GET, answered with a page (or with 304: the browser has it) |
| `request_answered` | another method, such as HEAD, answered with a status below 300 |
| `request_redirected` | redirected, like most forms that were accepted |
| `request_refused` | refused: 400 to 499 |
| `request_failed` | failed: 500 or more; 500 for an exception |

Its properties are `route`, `endpoint`, `method`, `status`, `duration_ms`, `request_id`, and with
`ACTIVITY_LOG_VIEW_ARGS` a map `view_args`: `{"course": "data", "lesson": "spread"}`. Text of over
256 characters is cut. Name them one by one where addresses hold secrets, such as `/reset/<token>`.
A request without a user is not logged, except with `ACTIVITY_LOG_ANONYMOUS`; with it anyone who can
reach the site adds to the trail.

All events of a request have the same `request_id`: the value of the request's header if that is 1
to 64 letters, digits, dots, hyphens or underscores, otherwise a random one.

Callables of the application
----------------------------
`ACTIVITY_LOG_EXTRA()` returns a mapping of properties, or None. It is called once in a request that
logs anything, at its first event, and what it returned is in all events of the request; properties
of the event itself take precedence. At most 4,096 packed bytes.

    def extra():
        address = keyed_digest(app.config["SECRET_KEY"], request.remote_addr)
        return {"address_digest": address, "tenant": g.tenant, "on_behalf_of": g.represented_id}

`ACTIVITY_LOG_FILTER(event_type, user, props)` returns the properties to store, or None for no
event. It may change `props`. It sees all events, those of `log` too, which returns False (REFUSED)
for one that is dropped; `stats()["filtered"]` counts them.

    def keep(event_type, user, props):
        if event_type == "page_view" and random() > 0.1:
            return None
        props.pop("answer", None)
        return props

They run in the request, without a lock. An exception is counted and logged at a bounded rate; the
event is stored with `extra_error`, or with `filter_error` and without any other property, since
those may be what the filter should redact. A call of over 50 ms is counted (`slow_calls`) and
logged.

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
| `UNKNOWN` | no | the event was accepted, but its storage was not confirmed in time |

A logd that hangs does not hold all threads of a server. While nothing at all is being confirmed,
calls end after an eighth of the timeout, except for the `ACTIVITY_LOG_DURABLE_WAITERS` oldest ones
of the process: set it to half of its threads. After a timeout no call waits, except one now and
then, until logd confirms something. `stats()["durable_breaker"]` says whether that is so (`open`)
and how many calls ended early (`skipped`). A disk that commits within an eighth of the timeout is
waited for as long as ever.

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
from flask_logd.digest import keyed_digest
from flask_logd.extension import ActivityLog
from flask_logd.settings import ConfigError
from logd_client import Outcome

__all__ = [
    "ActivityClient",
    "ActivityLog",
    "ClientFactory",
    "ConfigError",
    "Outcome",
    "keyed_digest",
]
