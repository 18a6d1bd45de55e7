"""Logs an event when a decorated function has done its work: `@activity.logged(...)`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from flask import has_request_context, request
from werkzeug.wrappers import Response

P = ParamSpec("P")
R = TypeVar("R")


def logging_after(
    function: Callable[P, R],
    names: tuple[str, ...],
    check: Callable[[], object],
    log: Callable[[Mapping[str, Any]], object],
) -> Callable[P, R]:
    """Wraps the function, so that `log` is called with the named arguments after it succeeded.

    `check` is called before it: where nothing can be logged it raises, and nothing is done. Raises
    TypeError for a name that is no argument of the function.
    """
    signature = inspect.signature(function)
    if unknown := set(names) - signature.parameters.keys():
        raise TypeError(f"{function.__qualname__} has no argument {sorted(unknown)[0]!r} to log")

    def record(result: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if has_request_context() and _is_refusal(result):
            return
        log(_chosen(signature, names, args, kwargs))

    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def logged_later(*args: P.args, **kwargs: P.kwargs) -> Any:
            check()
            result = await function(*args, **kwargs)
            record(result, args, kwargs)
            return result

        return cast(Callable[P, R], logged_later)

    @wraps(function)
    def logged(*args: P.args, **kwargs: P.kwargs) -> R:
        check()
        result = function(*args, **kwargs)
        record(result, args, kwargs)
        return result

    return logged


def _chosen(
    signature: inspect.Signature,
    names: tuple[str, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> dict[str, Any]:
    """Returns the named arguments; without names, those that a view has from its URL."""
    if not names:
        of_url = (request.view_args or {}) if has_request_context() else {}
        return {name: value for name, value in kwargs.items() if name in of_url}
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return {name: bound.arguments[name] for name in names}


def _is_refusal(result: object) -> bool:
    """Whether a view's return value is an answer with an error's status."""
    status: object = None
    if isinstance(result, Response):
        status = result.status_code
    elif isinstance(result, tuple) and len(result) in (2, 3):
        status = result[1]
    if isinstance(status, str):  # "404 NOT FOUND"
        return status[:1] in ("4", "5")
    return isinstance(status, int) and status >= 400
