"""`logd conformance`: tests a client in any language against the protocol."""

from __future__ import annotations

import json
import sys

import click

from logd.commands._command import Command
from logd.commands._options import Count, json_option
from logd.commands._output import print_note
from logd.conformance import runner, verdicts
from logd.conformance.cases import CASES
from logd.errors import EXIT_CANNOT_CREATE, EXIT_NOT_WHOLE, EXIT_OK, EXIT_UNAVAILABLE, EXIT_USAGE

_NAMES = [case.name for case in CASES]
_WIDTH = max(map(len, _NAMES))


def _list(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        for case in CASES:
            click.echo(f"{case.name:<{_WIDTH}}  {case.what}")
        context.exit()


@click.command(
    cls=Command,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    examples=[
        ("logd conformance ./driver", "test a client by its driver"),
        ("logd conformance perl driver.pl", "a driver that another program runs"),
        ("logd conformance --only full ./driver", "one case"),
        ("logd conformance --rounds 50 ./driver", "repeat the kills 50 times"),
    ],
    exits=[EXIT_OK, EXIT_NOT_WHOLE, EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_CANNOT_CREATE],
)
@click.option(
    "--only",
    "names",
    type=click.Choice(_NAMES),
    multiple=True,
    metavar="CASE",
    help="Run only this case; may be given several times.",
)
@click.option(
    "--rounds",
    type=Count(min=1, max=100_000),
    default=1,
    show_default=True,
    metavar="N",
    help="How often to repeat the cases that kill processes, in every order.",
)
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list,
    help="List the cases and what each tests.",
)
@json_option
@click.argument("driver", nargs=-1, required=True, type=click.UNPROCESSED)
def conformance(
    driver: tuple[str, ...], names: tuple[str, ...], rounds: int, as_json: bool
) -> None:
    """Test whether a client in any language follows the protocol.

    For authors of clients: shared/PROTOCOL.md is the specification, and this command tests against
    it. DRIVER is a small program around the client. It reads commands from standard input, one per
    line, and answers each with one line on standard output:

    \b
    open SOCKET RING_BYTES             ok
    emit TYPE USER NUMBER PAD          accepted | refused
    event TYPE USER PROPS              accepted | refused
    durable TYPE USER NUMBER MS        stored | refused | unknown
    outbox                             yes | no
    stats                              ATTEMPTED ACCEPTED REFUSED
    flush MS                           yes | no
    fork NUMBER                        accepted | refused | ok
    closefds FILE                      ok
    close                              ok
    payload TYPE USER TS_NS PROPS      HEX | refused
    record ID SEQUENCE PAYLOAD         HEX
    datagram ID KIND SEQUENCE PAYLOAD  HEX

    A driver answers `unsupported` to a command that it does not know; the tests that need the
    command are then skipped and listed in the summary. shared/PROTOCOL.md explains each command
    under "Conformance". Two drivers serve as examples: shared/logd_client/conformance_driver.py and
    shared/c/driver.c.

    Each case has its own directories, sockets and, where it kills processes, its own daemon, all in
    memory; no instance is touched. For a case that fails, it prints what the client did and which
    section of shared/PROTOCOL.md it violates.
    """
    results = []
    for result in runner.run(driver, names, rounds, print_note if sys.stderr.isatty() else _ignore):
        results.append(result)
        if not as_json:
            for line in verdicts.lines(result, _WIDTH):
                click.echo(line)
    if as_json:
        click.echo(json.dumps(verdicts.as_json(driver, results)))
    else:
        for line in verdicts.repeated(results):
            click.echo(line)
        if not names:
            click.echo(verdicts.NEVER_TRIED)
        click.echo(verdicts.summary_line(results))
    if not verdicts.conforms(results):
        sys.exit(EXIT_NOT_WHOLE)


def _ignore(_step: str) -> None:
    """Ignores the progress within a case; used if stderr is not a terminal."""
