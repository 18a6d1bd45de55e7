"""The auditor's pages: overview, events, and the loss ledger.

They only read. logd records each reading of a report about persons as an event.
"""

from __future__ import annotations

from flask import Blueprint, render_template, request

from webapp.classroom.model import catalogue
from webapp.classroom.model.accounts import Role, User, list_users
from webapp.classroom.model.analytics import analytics_for
from webapp.classroom.present.request_texts import describe_request
from webapp.classroom.present.texts import LOSS_CAUSES
from webapp.classroom.store.db import get_db
from webapp.classroom.views.access import current_account, roles_allowed
from webapp.classroom.views.forms import FilterForm
from webapp.classroom.views.lookup import key_argument, time_argument
from webapp.classroom.views.overview import overview_page

blueprint = Blueprint("auditor", __name__, url_prefix="/audit")


@blueprint.get("/")
@roles_allowed(Role.AUDITOR)
def overview() -> str:
    return overview_page(current_account())


@blueprint.get("/events")
@roles_allowed(Role.AUDITOR)
def events() -> str:
    form = FilterForm(request.args)
    before_id, before_ns = time_argument(request.args)
    analytics = analytics_for(current_account())
    page = analytics.events(form.wanted(before_id, before_ns)) if form.validate() else None
    return render_template(
        "events.html",
        form=form,
        page=page,
        types=analytics.event_types(),
        before_id=before_id,
        filters={name: request.args[name] for name in form.data if request.args.get(name)},
        people=_people(),
        describe_request=describe_request,
        titles=catalogue.titles(get_db()),
    )


@blueprint.get("/losses")
@roles_allowed(Role.AUDITOR)
def losses() -> str:
    analytics = analytics_for(current_account())
    before_id = key_argument(request.args, "before")
    return render_template(
        "losses.html",
        page=analytics.losses(before_id),
        totals=analytics.loss_totals(),
        meanings=LOSS_CAUSES,
        before_id=before_id,
    )


def _people() -> dict[str, User]:
    return {user.key: user for user in list_users(get_db())}
