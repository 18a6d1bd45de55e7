"""An event as the live view shows it: texts only, the same in the page and in its stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from webapp.classroom.model.accounts import User
from webapp.classroom.model.analytics import Event
from webapp.classroom.model.live import Position
from webapp.classroom.model.trail import READ
from webapp.classroom.present.filters import iso, own_first, readable
from webapp.classroom.present.health import count
from webapp.classroom.present.texts import describe_event
from webapp.classroom.present.trail_texts import describe_reading

PROPS_SHOWN_MAX = 12


def card(event: Event, people: Mapping[str, User], titles: Mapping[str, str]) -> dict[str, str]:
    """Returns the texts of an event, by the names of their places in the template."""
    if event.user is None:
        who = "no user"
    elif event.user in people:
        who = f"{people[event.user].name} #{event.user}"
    else:
        who = f"no such account #{readable(event.user)}"
    moment = iso(event.ts_ns)
    told, props = describe_event(event, titles), _props(event.props)
    if event.type == READ:
        # The view's own readings are among these: a line each, not a list of persons.
        reading = describe_reading(event)
        told, props = f"Read {reading.what}", count(len(reading.persons), "person")
    return {
        "position": str(Position(event.id, event.ts_ns)),
        "id": f"{event.id}",
        "moment": moment,
        "clock": moment.replace("T", " ")[: -len(".000Z")],
        "type": event.type,
        "who": who,
        "told": told,
        "props": props,
        "doubt": "time by the sender's clock" if event.time_in_doubt else "",
    }


def _props(props: Mapping[str, Any]) -> str:
    shown = own_first({name: value for name, value in props.items() if name != "request_id"})
    left = len(shown) - PROPS_SHOWN_MAX
    texts = [f"{readable(key)}: {readable(value)}" for key, value in shown[:PROPS_SHOWN_MAX]]
    return " · ".join(texts) + (" · …" if left > 0 else "")
