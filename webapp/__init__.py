"""The Classroom, the Flask extension that logs what happens on it, and what runs and fills both.

`activity` is the extension and knows nothing of the others; `classroom` is the site; `demo` is a
school to show; `cli` joins them for `flask --app webapp`; `run` is `make run`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from webapp.cli import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> Any:
    # At need, so that who imports `webapp.activity` alone does not load a site with its database.
    if name == "create_app":
        from webapp.cli import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
