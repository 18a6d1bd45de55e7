"""The Classroom site, a demo school for it, and `make run`.

`classroom` is the site, `demo` the school, `cli` the commands of `flask --app webapp`, `run` is
`make run`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from webapp.cli import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> Any:
    # The app is imported on first access, so that importing `webapp.run` does not load the site.
    if name == "create_app":
        from webapp.cli import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
