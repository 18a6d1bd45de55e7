"""Man pages, made of the same text as `--help` and `logd init`'s logd.toml: no second wording.

python -m logd.manpages DIRECTORY     writes DIRECTORY/man1/*.1 and DIRECTORY/man5/logd.toml.5
"""

from __future__ import annotations

import inspect
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from logd import __version__
from logd.cli import SECTIONS, main
from logd.commands._command import Command
from logd.commands._options import DEFAULT_CONFIG
from logd.config import settings
from logd.errors import EXITS

_SETTING = re.compile(r"(?:# )?((\w+)(?:\.\w+)? = .+?)(?:\s+# (.*))?\Z")
_ESCAPES = {"\\": r"\e", "'": r"\(aq", "^": r"\(ha", "~": r"\(ti", "`": r"\(ga"}


def pages() -> dict[str, str]:
    """Every page by its file's name, in roff."""
    commands = [main.load_command(name) for part in SECTIONS.values() for name in part]
    made = {f"logd-{command.name}.1": "\n".join(_command_page(command)) for command in commands}
    made["logd.1"] = "\n".join(_main_page())
    made["logd.toml.5"] = "\n".join(_config_page())
    return {name: text + "\n" for name, text in made.items()}


def write(directory: Path) -> list[Path]:
    """Writes them into man1 and man5 under the directory. Raises OSError."""
    files = []
    for name, text in pages().items():
        file = directory / f"man{name[-1]}" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="ascii")
        file.chmod(0o644)
        files.append(file)
    return files


# -- the pages -------------------------------------------------------------------------------------


def _main_page() -> Iterator[str]:
    context = _context(main, None)
    yield from _head("logd", 1, main.get_short_help_str(200))
    yield from _section("SYNOPSIS", [r"\fBlogd\fR \fICOMMAND\fR [\fIOPTIONS\fR] [\fIARGS\fR]"])
    yield from _section("DESCRIPTION", _help(main))
    for title, part in SECTIONS.items():
        yield ".SH " + f"COMMANDS: {title}".upper()
        for name in part:
            what = main.load_command(name).get_short_help_str(200)
            yield from _item(_bold(f"logd-{name}") + "(1)", what)
    yield from _options(main, context)
    yield ".SH EXIT STATUS"
    for code, end in EXITS.items():
        restart = "" if end.restart == "-" else f" A restart helps: {end.restart}."
        yield from _item(_bold(str(code)), f"{_capital(end.meaning)}.{restart}")
    yield ".SH ENVIRONMENT"
    yield from _item(_bold("LOGD_CONFIG"), "The instance's logd.toml, where no --config names it.")
    yield ".SH FILES"
    yield from _item(_bold(DEFAULT_CONFIG), "The configuration where nothing else names one.")
    names = [f"logd-{name}(1)" for part in SECTIONS.values() for name in part]
    yield from _see_also([*names, "logd.toml(5)"])


def _command_page(command: click.Command) -> Iterator[str]:
    context = _context(command, _context(main, None))
    name = f"logd {command.name}"
    yield from _head(f"logd-{command.name}", 1, command.get_short_help_str(200))
    usage = " ".join(command.collect_usage_pieces(context))
    yield from _section("SYNOPSIS", [f"{_bold(name)} {_escape(usage)}"])
    yield from _section("DESCRIPTION", _help(command))
    yield from _options(command, context)
    if isinstance(command, Command):
        yield ".SH EXIT STATUS"
        for code in command.exits:
            yield from _item(_bold(str(code)), f"{_capital(EXITS[code].meaning)}.")
        yield ".SH EXAMPLES"
        for number, (line, purpose) in enumerate(command.examples):
            yield from ([".PP"] if number else [])
            yield from (_prose(f"{_capital(purpose)}:"), *_as_it_is([line]))
    yield from _see_also(["logd(1)", "logd.toml(5)"])


def _config_page() -> Iterator[str]:
    yield from _head("logd.toml", 5, "the configuration of logd")
    first, *blocks = settings.TEMPLATE.strip().split("\n\n")
    yield from _section("DESCRIPTION", [_prose(_uncommented(first.splitlines()))])
    yield ".SH SETTINGS"
    for block in blocks:
        prose: list[str] = []
        for line in block.splitlines():
            found = _SETTING.match(line)
            if not found or found[2] not in settings.names():
                prose.append(line)
                continue
            if prose:
                yield from (".PP", _prose(_uncommented(prose)))
                prose = []
            yield from _setting(*found.groups())
        if prose:
            yield from (".PP", _prose(_uncommented(prose)))
    yield from _see_also(["logd(1)"])


def _setting(line: str, name: str, comment: str | None) -> Iterator[str]:
    is_default = settings.is_default(name, tomllib.loads(line)[name])
    example = line if "." in line.split(" = ")[0] else line.split(" = ")[1]
    said = [comment] if comment else []
    said += [settings.expected(name), f"{'default' if is_default else 'for example'}: {example}"]
    yield from _item(_bold(name), " ".join(f"{_capital(part)}." for part in said))


# -- parts of a page -------------------------------------------------------------------------------


def _head(name: str, section: int, what: str) -> Iterator[str]:
    yield r".\" Made by logd.manpages from the text of --help and logd.toml."
    yield f'.TH "{_escape(name.upper())}" "{section}" "" "logd {__version__}" "logd"'
    yield from _section("NAME", [rf"{_escape(name)} \- {_escape(what.rstrip('.'))}"])


def _section(title: str, lines: Sequence[str] | Iterator[str]) -> Iterator[str]:
    yield f".SH {title}"
    yield from lines


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    yield ".SH OPTIONS"
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record:
            yield from _item(_option(record[0]), record[1])


def _item(tag: str, text: str) -> Iterator[str]:
    yield from (".TP", tag, _prose(text))


def _see_also(names: list[str]) -> Iterator[str]:
    shown = [_bold(name[:-3]) + name[-3:] for name in names]
    yield from _section("SEE ALSO", [",\n".join(shown)])


def _help(command: click.Command) -> Iterator[str]:
    for number, paragraph in enumerate(inspect.cleandoc(command.help or "").split("\n\n")):
        if number:
            yield ".PP"
        if paragraph.startswith("\b"):
            yield from _as_it_is(paragraph.splitlines()[1:])
        else:
            yield _prose(paragraph)


def _as_it_is(lines: Sequence[str]) -> Iterator[str]:
    yield from (".RS 4", ".nf", *(_line(_code(line)) for line in lines), ".fi", ".RE")


# -- text ------------------------------------------------------------------------------------------


def _context(command: click.Command, parent: click.Context | None) -> click.Context:
    return click.Context(command, info_name=command.name, parent=parent, **main.context_settings)


def _uncommented(lines: Sequence[str]) -> str:
    return " ".join(line.removeprefix("#").strip() for line in lines)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _escape(text: str) -> str:
    """Text as roff shows it unchanged."""
    shown = "".join(_ESCAPES.get(char, char) for char in text).replace("--", r"\-\-")
    return re.sub(r"[^\x00-\x7f]", lambda found: rf"\[u{ord(found[0]):04X}]", shown)


def _code(text: str) -> str:
    return _escape(text.replace("-", "\0")).replace("\0", r"\-")


def _bold(text: str) -> str:
    return rf"\fB{_code(text)}\fR"


def _option(text: str) -> str:
    words = re.split(r"( |, )", text)
    return "".join(
        word if word in (" ", ", ") else _bold(word) if word[0] == "-" else rf"\fI{_code(word)}\fR"
        for word in words
    )


def _prose(text: str) -> str:
    """A paragraph: what stands between backticks is bold."""
    parts = re.split(r"`([^`]*)`", " ".join(text.split()))
    return _line("".join(_bold(p) if n % 2 else _escape(p) for n, p in enumerate(parts)))


def _line(text: str) -> str:
    """One that begins like a request would be taken for one."""
    return rf"\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m logd.manpages DIRECTORY")
    try:
        write(Path(sys.argv[1]))
    except OSError as problem:
        sys.exit(f"logd.manpages: {problem.filename}: {problem.strerror}")
