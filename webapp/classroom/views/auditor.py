"""The auditor's pages: overview, and the loss ledger.

They only read. logd records each reading of a report about persons as an event.
"""

from __future__ import annotations

from flask import Blueprint, render_template, request

from webapp.classroom.model.accounts import Role
from webapp.classroom.model.analytics import analytics_for
from webapp.classroom.present.texts import LOSS_CAUSES
from webapp.classroom.views.access import current_account, roles_allowed
from webapp.classroom.views.explorer import events_page
from webapp.classroom.views.lookup import key_argument
from webapp.classroom.views.overview import overview_page

blueprint = Blueprint("auditor", __name__, url_prefix="/audit")


@blueprint.get("/")
@roles_allowed(Role.AUDITOR)
def overview() -> str:
    return overview_page(current_account())


@blueprint.get("/events")
@roles_allowed(Role.AUDITOR)
def events() -> str:
    # Here, so that its stored requests keep their name. The rest of the explorer is in explorer.py.
    return events_page()


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
