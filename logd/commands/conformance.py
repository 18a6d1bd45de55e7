"""`logd conformance`: whether a client in another language keeps the protocol."""

from __future__ import annotations

import json
import sys

import click

from logd.commands._command import Command
from logd.commands._options import Count, say
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
        ("logd conformance ./driver", "a client's driver, a program of its own"),
        ("logd conformance perl driver.pl", "one that another program runs"),
        ("logd conformance --only full ./driver", "a single case"),
        ("logd conformance --rounds 50 ./driver", "many more kills"),
    ],
    exits=[EXIT_OK, EXIT_NOT_WHOLE, EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_CANNOT_CREATE],
)
@click.option(
    "--only",
    "names",
    type=click.Choice(_NAMES),
    multiple=True,
    metavar="CASE",
    help="This case alone; may be given several times.",
)
@click.option(
    "--rounds",
    type=Count(min=1, max=100_000),
    default=1,
    show_default=True,
    metavar="N",
    help="How often kills go through every order.",
)
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list,
    help="List the cases and what each tries.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
@click.argument("driver", nargs=-1, required=True, type=click.UNPROCESSED)
def conformance(
    driver: tuple[str, ...], names: tuple[str, ...], rounds: int, as_json: bool
) -> None:
    """Run a client in any language through the life of a producer.

    For authors of clients: shared/PROTOCOL.md says how a client works, and this whether one does.
    DRIVER is a small program around the client that reads commands from its standard input, one a
    line, and answers each with one line on its standard output:

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

    What a driver does not know it answers with `unsupported`; what needs that is then not tried,
    and the summary lists it. The page has the meaning of each command under "Conformance", and the
    drivers of two clients are beside it: shared/logd_client/conformance_driver.py and
    shared/c/driver.c.

    Each case has directories, sockets and, for kills, a daemon of its own, in memory; no instance
    is touched. A case that fails says what the client did, and which part of shared/PROTOCOL.md
    says how it must be.
    """
    results = []
    for result in runner.run(driver, names, rounds, say if sys.stderr.isatty() else _nothing):
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


def _nothing(_step: str) -> None:
    """Progress within a case, where no terminal shows it."""
