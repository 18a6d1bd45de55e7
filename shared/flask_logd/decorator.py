"""The decorator `@activity.logged(...)`: logs an event each time a function succeeds."""

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
    """Wraps `function`, so that `log` is called with its named arguments after it has succeeded.

    `check` is called before `function`, and raises where nothing can be logged. Raises TypeError if
    one of `names` is no argument of `function`.
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
    """Returns the arguments to log: those in `names`; without names, those from a view's URL."""
    if not names:
        of_url = (request.view_args or {}) if has_request_context() else {}
        return {name: value for name, value in kwargs.items() if name in of_url}
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return {name: bound.arguments[name] for name in names}


def _is_refusal(result: object) -> bool:
    """Whether a view's return value is an answer whose status says that an error occurred."""
    status: object = None
    if isinstance(result, Response):
        status = result.status_code
    elif isinstance(result, tuple) and len(result) in (2, 3):
        status = result[1]
    if isinstance(status, str):  # a status in words, such as "404 NOT FOUND"
        return status[:1] in ("4", "5")
    return isinstance(status, int) and status >= 400
