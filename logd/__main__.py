"""The entry of `logd` and `python -m logd`: loads the command line, or reports why it cannot."""

from __future__ import annotations

import sys

EXIT_SYSTEM, EXIT_INTERRUPTED = 71, 130


def main() -> None:
    """Runs the command line, and reports an error if the program cannot be loaded.

    If an import fails or is interrupted, Python by itself would end with a traceback and 1, which
    is the exit code of a changed trail.
    """
    try:
        from logd.cli import main
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - a library without memory, descriptors, or its file
        _fail(f"cannot be loaded: {type(error).__name__}: {error}", EXIT_SYSTEM)
    main(prog_name="logd")


def _fail(message: str, exit_code: int) -> None:
    if sys.stderr is not None:
        print(f"logd: {message}", file=sys.stderr)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
