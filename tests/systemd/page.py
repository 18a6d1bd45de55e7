"""The commands of systemd/README.md, section by section."""

from __future__ import annotations

import re
import shlex

from tests.support.instance import ROOT

PAGE = ROOT / "systemd" / "README.md"
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sections(text: str) -> dict[str, str]:
    """Returns the text under each heading."""
    parts = re.split(r"^##+ (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands_by_section() -> dict[str, list[str]]:
    """Returns the command lines of the `sh` blocks by heading."""
    found = {
        heading: [line for block in _BLOCK.findall(text) for line in lines(block)]
        for heading, text in sections(PAGE.read_text()).items()
    }
    return {heading: commands for heading, commands in found.items() if commands}


def lines(block: str) -> list[str]:
    """Returns the commands of one block, without comments and with continued lines joined."""
    joined = block.replace("\\\n", " ")
    commands = [" ".join(line.split()) for line in joined.splitlines()]
    return [without_comment(line) for line in commands if line and not line.startswith("#")]


def without_comment(line: str) -> str:
    """Returns the command before a ` # ...`, which no command of the page has in quotes."""
    command = line.split(" # ")[0].rstrip()
    shlex.split(command)  # raises on a quote that is never closed
    return command
