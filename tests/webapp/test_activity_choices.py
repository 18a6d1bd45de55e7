"""The Flask extension: which requests are logged, and with which arguments."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.routing import BaseConverter

from flask_logd import ActivityLog, ConfigError
from flask_logd.page_views import VIEW_ARG_CHARS_MAX
from tests.support.instance import Instance, check_sums
from tests.webapp.flask_apps import (
    Clients,
    app_of_7,
    logging_to,
    make_app,
)

# -- arguments of the URL ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "logged"),
    [
        ((), None),
        ("all", {"room": "blue", "seat": 4}),
        (["seat"], {"seat": 4}),
        ({"seat", "room", "slug"}, {"room": "blue", "seat": 4}),
        (("slug",), None),
    ],
)
def test_the_arguments_of_a_pages_address_are_logged_by_choice(
    clients: Clients, names: Any, logged: dict[str, Any] | None
) -> None:
    app, _ = app_of_7(clients, ACTIVITY_LOG_VIEW_ARGS=names)
    app.test_client().get("/rooms/blue/seats/4")
    (event,) = clients.events
    assert event.props.get("view_args") == logged
    assert ("view_args" in event.props) == (logged is not None)


def test_a_page_without_arguments_logs_none(clients: Clients) -> None:
    app, _ = app_of_7(clients, ACTIVITY_LOG_VIEW_ARGS="all")
    for path in ("/text", "/no-such-page"):
        app.test_client().get(path)
    assert ["view_args" in event.props for event in clients.events] == [False, False]


@pytest.mark.parametrize("room", ["x" * 60_000, "\N{EURO SIGN}" * 20_000])
@pytest.mark.parametrize("seat", [4, 10**1000])
def test_an_address_of_any_length_is_cut_and_its_page_view_stored(
    instance: Instance, room: str, seat: int
) -> None:
    app = make_app(
        ACTIVITY_LOG_SOCKET=instance.socket,
        ACTIVITY_LOG_USER=lambda: 7,
        ACTIVITY_LOG_VIEW_ARGS="all",
    )
    app.add_url_rule("/rooms/<room>/seats/<int:seat>", "seat", lambda room, seat: f"{room}{seat}")
    activity = ActivityLog(app)
    assert app.test_client().get(f"/rooms/{room}/seats/{seat}").status_code == 200
    stats = activity.client(app).stats()
    instance.start()
    check_sums(instance.settle(), attempted=stats["attempted"], accepted=1)
    (event,) = instance.events("--user", "7")
    activity.client(app).close()
    args = event["props"]["view_args"]
    assert args["room"] == room[: VIEW_ARG_CHARS_MAX - 1] + "…"
    assert args["seat"] == (4 if seat == 4 else "1" + "0" * (VIEW_ARG_CHARS_MAX - 2) + "…")


def test_a_method_of_any_length_is_cut(clients: Clients) -> None:
    app, _ = app_of_7(clients)
    assert app.test_client().open("/text", method="X" * 40_000).status_code == 405
    assert [event.props["method"] for event in clients.events] == ["X" * 32]


class Thing:
    """What a converter of the app's own makes of an argument."""


class ThingConverter(BaseConverter):
    def to_python(self, value: str) -> Thing:
        return Thing()


def test_an_argument_that_has_no_form_is_marked_and_its_page_view_stored(
    instance: Instance,
) -> None:
    app = make_app(
        ACTIVITY_LOG_SOCKET=instance.socket,
        ACTIVITY_LOG_USER=lambda: 7,
        ACTIVITY_LOG_VIEW_ARGS="all",
    )
    app.url_map.converters["thing"] = ThingConverter
    app.add_url_rule("/things/<thing:it>", "thing", lambda it: f"{it}")
    activity = ActivityLog(app)
    app.test_client().get("/things/4")
    stats = activity.client(app).stats()
    instance.start()
    check_sums(instance.settle(), attempted=stats["attempted"], accepted=1)
    (event,) = instance.events("--user", "7")
    activity.client(app).close()
    assert "Thing" in event["props"]["view_args"]["it"]


# -- requests ----------------------------------------------------------------------------------

PATHS = (
    ("GET", "/text", 200),
    ("HEAD", "/text", 200),
    ("POST", "/only-post", 200),
    ("GET", "/redirect", 302),
    ("GET", "/forbidden", 403),
    ("GET", "/no-such-page", 404),
    ("GET", "/handled-crash", 503),
)


@pytest.mark.parametrize(
    ("config", "logged"),
    [
        ({}, [200, 200, 200, 302, 403, 404, 503]),
        ({"METHODS": ["get"]}, [200, 302, 403, 404, 503]),
        ({"METHODS": ("GET", "POST"), "STATUSES": ["2xx", 304]}, [200, 200]),
        ({"STATUSES": {403, "5xx"}}, [403, 503]),
        ({"STATUSES": []}, []),
    ],
)
def test_methods_and_statuses_are_a_choice(
    clients: Clients, config: dict[str, Any], logged: list[int]
) -> None:
    app, _ = app_of_7(clients, **{f"ACTIVITY_LOG_{key}": value for key, value in config.items()})
    for method, path, status in PATHS:
        assert app.test_client().open(path, method=method).status_code == status
    assert [event.props["status"] for event in clients.events] == logged


@pytest.mark.parametrize("anonymous", [False, True])
def test_requests_without_a_user_are_a_choice(clients: Clients, anonymous: bool) -> None:
    app = make_app(ACTIVITY_LOG_ANONYMOUS=anonymous, ACTIVITY_LOG_USER=lambda: None)
    logging_to(clients, app)
    for path in ("/text", "/no-such-page", "/crash"):
        app.test_client().get(path)
    wanted = ["page_view", "request_refused", "request_failed"] if anonymous else []
    assert [event.type for event in clients.events] == wanted
    assert {event.user for event in clients.events} <= {None}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("VIEW_ARGS", "slug"),
        ("VIEW_ARGS", None),
        ("VIEW_ARGS", [7]),
        ("ANONYMOUS", "yes"),
        ("METHODS", "GET"),
        ("METHODS", None),
        ("STATUSES", "2xx"),
        ("STATUSES", 200),
        ("STATUSES", ["2XX"]),
        ("STATUSES", [99]),
        ("STATUSES", [600]),
        ("STATUSES", [None]),
        ("EXTRA", {"tenant": 1}),
        ("FILTER", "all"),
        ("DURABLE", ["request_refused"]),
    ],
)
def test_a_bad_choice_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"ACTIVITY_LOG_{key} must be"):
        ActivityLog(make_app(**{f"ACTIVITY_LOG_{key}": value}))
