"""The Classroom, a demo school for it, and what runs both.

`classroom` is the site; `demo` is a school to show; `cli` joins them for `flask --app webapp`;
`run` is `make run`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from webapp.cli import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> Any:
    # At need, so that an import of `webapp.run` does not load the site with its database.
    if name == "create_app":
        from webapp.cli import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
