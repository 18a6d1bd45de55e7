"""The auditor's overview, and its pages: readings, exports, and quarantine with its excerpts.

The overview names no person, and opening it is no reading; what names persons is on pages of its
own, whose reports logd records.
"""

from __future__ import annotations

import time

from flask import Blueprint, render_template, request

from webapp.classroom.model.accounts import Role, User, find_users
from webapp.classroom.model.analytics import Analytics
from webapp.classroom.model.reports import Unavailable, reports_for
from webapp.classroom.model.trail import Trail, trail_for
from webapp.classroom.present import trail_texts
from webapp.classroom.present.health import Figures, Level, assess
from webapp.classroom.store.db import get_db
from webapp.classroom.views.access import current_account, roles_allowed
from webapp.classroom.views.lookup import key_argument, time_argument

blueprint = Blueprint("trail", __name__, url_prefix="/audit")


def overview_page(account: User) -> str:
    """Renders the overview: the state of the record in a line, problems, and figures."""
    reports = reports_for(account)
    analytics, trail = Analytics(reports), Trail(reports)
    summary, losses = analytics.summary(), analytics.loss_totals()
    verification, state = analytics.verification(), trail.state()
    figures = Figures(summary, losses, verification, state, time.time_ns())
    return render_template(
        "audit.html",
        health=assess(figures),
        Level=Level,
        summary=summary,
        losses=losses,
        verification=verification,
        state=state,
        removals=trail.removals(),
        types=analytics.event_types(),
        period=trail_texts.period,
    )


@blueprint.get("/quarantine")
@roles_allowed(Role.AUDITOR)
def quarantine() -> str:
    before_id = key_argument(request.args, "before")
    page = trail_for(current_account()).quarantine(before_id)
    return render_template(
        "quarantine.html", page=page, before_id=before_id, excerpt=trail_texts.excerpt
    )


@blueprint.get("/readings")
@roles_allowed(Role.AUDITOR)
def readings() -> str:
    before_id, before_ns = time_argument(request.args)
    page = trail_for(current_account()).readings(before_id, before_ns)
    events = [] if isinstance(page, Unavailable) else page.items
    rows = [(event, trail_texts.describe_reading(event)) for event in events]
    shown = {key for _, text in rows for key in text.persons[: trail_texts.NAMES_MAX]}
    keys = shown | {event.user for event in events if event.user is not None}
    return render_template(
        "readings.html",
        page=page,
        rows=rows,
        people=find_users(get_db(), keys),
        names_max=trail_texts.NAMES_MAX,
        before_id=before_id,
    )


@blueprint.get("/exports")
@roles_allowed(Role.AUDITOR)
def exports() -> str:
    before_id, before_ns = time_argument(request.args)
    return render_template(
        "exports.html",
        page=trail_for(current_account()).exports(before_id, before_ns),
        before_id=before_id,
        describe_filters=trail_texts.describe_filters,
    )
