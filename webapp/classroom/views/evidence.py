"""The auditor's evidence sheets: a person's events and what may be missing; to print and download.

They only read. logd records each of its readings about a person as an event.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, abort, render_template, request, send_file
from flask.typing import ResponseReturnValue
from flask_wtf import FlaskForm
from wtforms import SelectField, StringField
from wtforms.validators import InputRequired, Length, Optional, ValidationError

from webapp.classroom.model import catalogue
from webapp.classroom.model.accounts import LOGIN_CHARS_MAX, Role, User, find_login, find_user
from webapp.classroom.model.evidence import (
    Evidence,
    Sheet,
    SheetPage,
    Wanted,
    evidence_for,
)
from webapp.classroom.model.reports import Unavailable
from webapp.classroom.present import evidence_file
from webapp.classroom.present.evidence_file import Heading
from webapp.classroom.present.evidence_texts import completeness
from webapp.classroom.present.filters import iso
from webapp.classroom.present.texts import describe_event
from webapp.classroom.store.db import get_db
from webapp.classroom.views.access import current_account, roles_allowed
from webapp.classroom.views.lookup import key_argument
from webapp.classroom.views.moments import FORMATS, MomentField, known_year, ns

blueprint = Blueprint("evidence", __name__, url_prefix="/audit/evidence")

_QUESTION = ("user", "item", "since", "until")


class EvidenceForm(FlaskForm):  # type: ignore[misc]  # flask_wtf has no types
    """The question of a sheet, sent by GET so that a sheet has an address."""

    class Meta:
        # Reading changes nothing, and a token does not belong in an address.
        csrf = False

    user = StringField(
        "Person (login or number)",
        [InputRequired("Say whose sheet: a login or a number."), Length(max=LOGIN_CHARS_MAX)],
        filters=[lambda text: text.strip() if text else text],
        render_kw={"autocomplete": "off", "autocapitalize": "none"},
    )
    item = SelectField("About", [Optional()], validate_choice=False)
    since = MomentField("Since (UTC)", [Optional(), known_year], format=FORMATS)
    until = MomentField("Before (UTC)", [Optional(), known_year], format=FORMATS)

    def validate_user(self, field: StringField) -> None:
        if _user_key(field.data or "") is None:
            raise ValidationError(f"No account has the login {field.data!r}. Try its number.")

    def validate_item(self, field: SelectField) -> None:
        if field.data and field.data not in _titles():
            raise ValidationError("There is no such course, lesson, task or quiz.")

    def validate_until(self, field: MomentField) -> None:
        since = self.since.data
        if since is not None and field.data is not None and field.data <= since:
            raise ValidationError("The end has to come after the start.")

    def wanted(self, up_to: int | None = None) -> Wanted:
        """Returns the question that a valid form describes."""
        user = _user_key(self.user.data or "")
        assert user is not None
        return Wanted(
            user,
            _items(self.item.data) if self.item.data else (),
            ns(self.since.data),
            ns(self.until.data),
            up_to,
        )


@blueprint.get("")
@roles_allowed(Role.AUDITOR)
def sheet() -> str:
    """Shows a sheet a page at a time, or all of it to be printed."""
    form = _form()
    if not request.args or not form.validate():
        return render_template("evidence.html", form=form, asked=bool(request.args), sheet=None)
    wanted = form.wanted(key_argument(request.args, "up_to"))
    after, whole = key_argument(request.args, "after"), request.args.get("all") == "1"
    return _page(form, wanted, evidence_for(current_account()), after, whole)


@blueprint.get("/download")
@roles_allowed(Role.AUDITOR)
def download() -> ResponseReturnValue:
    """Sends a sheet as a ZIP file, with proofs; a page with the reason if that is not possible."""
    form = _form()
    if not form.validate():
        return render_template("evidence.html", form=form, asked=True, sheet=None), 400
    wanted = form.wanted(key_argument(request.args, "up_to"))
    asked = evidence_for(current_account())
    found = asked.sheet(wanted)
    if isinstance(found, Unavailable):
        return _without(form, found), 503
    if found.more:
        abort(400)  # the page has no link for it
    wanted = form.wanted(found.up_to)
    events = asked.every_event(wanted, found, proofs=True)
    if isinstance(events, Unavailable):
        return _without(form, events), 503
    describe = _describe()
    file = evidence_file.write(
        found, events, _heading(form, wanted), lambda one: describe(one.event)
    )
    day = iso(found.made_ns)[:10]
    name = "".join(char if char.isalnum() else "-" for char in wanted.user)
    return send_file(
        file,
        mimetype="application/zip",
        as_attachment=True,
        download_name=f"evidence-{name}-{day}.zip",
    )


def _page(
    form: EvidenceForm, wanted: Wanted, asked: Evidence, after: int | None, whole: bool
) -> str:
    found = asked.sheet(wanted)
    if isinstance(found, Unavailable):
        return _without(form, found)
    wanted = form.wanted(found.up_to)
    page: SheetPage | Unavailable
    if whole and not found.more:
        every = asked.every_event(wanted, found, proofs=False)
        page = every if isinstance(every, Unavailable) else SheetPage(every)
    else:
        whole = False
        page = asked.page(wanted, after)
    question = {name: request.args[name] for name in _QUESTION if request.args.get(name)}
    return render_template(
        "evidence.html",
        form=form,
        asked=True,
        sheet=found,
        complete=completeness(found),
        page=page,
        whole=whole,
        after=after,
        question=question,
        parts=_parts(found, question),
        heading=_heading(form, wanted),
        describe=_describe(),
    )


def _without(form: EvidenceForm, reason: Unavailable) -> str:
    return render_template("evidence.html", form=form, asked=True, sheet=reason)


def _form() -> EvidenceForm:
    form = EvidenceForm(request.args)
    kinds: dict[str, list[tuple[str, str]]] = {}
    for key, title in _titles().items():
        kinds.setdefault(key.partition(":")[0].capitalize(), []).append((key, title))
    form.item.choices = {"": [("", "everything")], **kinds}
    return form


def _titles() -> dict[str, str]:
    """Returns the titles of what a sheet may be about, by `kind:id`."""
    db = get_db()
    found: dict[str, str] = {}
    for course in catalogue.list_courses(db):
        found[f"course:{course.slug}"] = course.title
        for lesson in catalogue.list_lessons(db, course.slug):
            found[f"lesson:{course.slug}/{lesson.slug}"] = lesson.title
        found |= {f"task:{task.id}": task.title for task in catalogue.list_tasks(db, course.slug)}
        found |= {f"quiz:{quiz.id}": quiz.title for quiz in catalogue.list_quizzes(db, course.slug)}
    return dict(sorted(found.items(), key=lambda entry: entry[0].partition(":")[0]))


def _items(key: str) -> tuple[str, ...]:
    """Returns how events name a course, lesson, task or quiz: by properties or by an address."""
    kind, _, name = key.partition(":")
    match kind:
        case "course":
            db = get_db()
            tasks = [task.id for task in catalogue.list_tasks(db, name)]
            quizzes = [quiz.id for quiz in catalogue.list_quizzes(db, name)]
            return (
                _pairs(slug=name),
                *(_pairs(task=task) for task in tasks),
                *(_pairs(quiz=quiz) for quiz in quizzes),
            )
        case "lesson":
            course, _, lesson = name.partition("/")
            return (_pairs(slug=course, lesson_slug=lesson),)
        case _:
            return (_pairs(**{kind: name}), _pairs(**{f"{kind}_id": name}))


def _pairs(**values: str) -> str:
    return urlencode(values)


def _heading(form: EvidenceForm, wanted: Wanted) -> Heading:
    made_by = current_account()
    return Heading(
        _name(wanted.user),
        _titles()[form.item.data] if form.item.data else None,
        f"{made_by.name} (#{made_by.key})",
        wanted.since_ns,
        wanted.until_ns,
    )


def _name(key: str) -> str:
    user: User | None = None
    if key.isascii() and key.isdigit() and int(key) < 2**63:
        user = find_user(get_db(), int(key))
    return f"no account any more (#{key})" if user is None else f"{user.name} (#{key})"


def _describe() -> Callable[[Any], str]:
    titles = catalogue.titles(get_db())
    return lambda event: describe_event(event, titles)


def _parts(sheet: Sheet, question: dict[str, str]) -> list[dict[str, str]]:
    """Returns the questions for the two parts of a range with too many events."""
    if not sheet.more or sheet.split_ns is None:
        return []
    # Whole minutes, as the form has them.
    minute = datetime.fromtimestamp(sheet.split_ns // 10**9 // 60 * 60, UTC)
    split = minute.strftime("%Y-%m-%dT%H:%M")
    if question.get("since") == split:
        return []
    return [{**question, "until": split}, {**question, "since": split}]


def _user_key(text: str) -> str | None:
    """Returns the id of a login; a number is an id itself, since the log outlives accounts."""
    if text.isascii() and text.isdigit():
        return text
    user = find_login(get_db(), text)
    return None if user is None else user.key
