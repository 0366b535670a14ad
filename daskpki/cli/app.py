"""The command line: the table of commands and their modules, global options, and exit codes.

Only the module of the command that runs is imported, so that `daskpki issue` does not pay for `daskpki demo`; the help
and shell completion load all of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import import_module
from typing import Annotated, Final

import typer

from daskpki import __version__
from daskpki.cli.invocation import FLAGS, Commands, GlobalOptions, Invocation, given_options, hoist, with_options
from daskpki.cli.output import Output, ReaderGone, results, tolerate_characters
from daskpki.errors import DaskpkiError, Interrupted, NothingToDo
from daskpki.files import drop_unwritable

# The commands in the order in which a new user meets them: name, module:attribute, panel of the help. A Typer attribute
# is a group of commands.
COMMANDS: Final = {
    "demo": ("demo:demo", "Start here"),
    "init-ca": ("init_ca:init_ca", "Certificates"),
    "issue": ("issue:issue", "Certificates"),
    "list": ("list_show:list_", "Certificates"),
    "status": ("status_doctor:status", "Certificates"),
    "show": ("list_show:show", "Certificates"),
    "verify": ("list_show:verify", "Certificates"),
    "renew": ("renew_revoke:renew", "Certificates"),
    "revoke": ("renew_revoke:revoke", "Certificates"),
    "crl": ("crl:crl", "Certificates"),
    "sign": ("csr:sign", "Certificates"),
    "rotate-ca": ("rotate_ca:rotate_ca", "Certificates"),
    "export": ("export:export", "Certificates"),
    "request": ("csr:request", "Your credential"),
    "login": ("login:login", "Your credential"),
    "logout": ("login:logout", "Your credential"),
    "whoami": ("login:whoami", "Your credential"),
    "context": ("login:context", "Your credential"),
    "dashboard": ("dashboard:dashboard", "Your credential"),
    "secret": ("secret:secret", "The cluster's other secrets"),
    "audit": ("audit:audit", "Records"),
    "report": ("audit:report", "Records"),
    "copy": ("local_store:copy", "Records"),
    "delete-cluster": ("delete_cluster:delete_cluster", "Records"),
    "slot": ("local_store:slot", "The local store"),
    "backup": ("local_store:backup", "The local store"),
    "restore": ("local_store:restore", "The local store"),
    "grant": ("grant:grant", "On Google Cloud"),
    "deploy": ("deploy:deploy", "On Google Cloud"),
    "doctor": ("status_doctor:doctor", "When something is wrong"),
}

EPILOG: Final = (
    "You can also give these options after the command. Exit codes: 0 done, 1 failed, 2 usage, 3 not trusted or "
    "refused by policy, 4 not found, 5 permission denied, 6 nothing to do, 75 temporary, try again, 130 interrupted."
)


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; errors are printed, never raised."""
    hoisted = hoist(arguments)
    repeat = partial(with_options, options=given_options(hoisted), commands=COMMANDS)
    tolerate_characters(sys.stdout)
    try:
        code = _status(hoisted, repeat)
        with results():
            sys.stdout.flush()
        if code == Interrupted.exit_code:  # typer's, which prints nothing
            raise Interrupted("interrupted")
    except DaskpkiError as error:
        Output(verbose="--verbose" in hoisted or "-v" in hoisted, repeat=repeat).error(error)
        code = error.exit_code
    except ReaderGone:
        code = 0
    drop_unwritable(sys.stdout, sys.stderr)
    return code


def _status(hoisted: Sequence[str], repeat: Callable[[str], str]) -> int:
    command = typer.main.get_command(build(hoisted))
    try:
        command.main(args=list(hoisted), prog_name="daskpki", obj=repeat)
    except SystemExit as end:  # how typer ends, for --help and usage errors as well
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except NothingToDo as answer:  # the result was printed
        return answer.exit_code
    return 0


def build(arguments: Sequence[str]) -> typer.Typer:
    """The app with the command that the arguments name, or with all commands if they name none."""
    app = Commands(
        name="daskpki",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        epilog=EPILOG,
    )
    app.callback()(options)
    for name in _named(arguments):
        place, panel = COMMANDS[name]
        module, _, attribute = place.partition(":")
        found = getattr(import_module(f"daskpki.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel, no_args_is_help=name in NEEDS_ARGUMENTS)(found)
    return app


NEEDS_ARGUMENTS: Final = frozenset(
    {"issue", "request", "sign", "show", "verify", "export", "report", "copy", "backup", "restore"}
)


def _named(arguments: Sequence[str]) -> Iterable[str]:
    """The command that hoisted arguments name behind the global options; all commands if they name none."""
    if "_DASKPKI_COMPLETE" in os.environ:
        # bash puts the words before the cursor into one variable, other shells into another
        line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
        arguments = hoist(line.split()[1:])
    pending = iter(arguments)
    for argument in pending:
        if argument in COMMANDS:
            return (argument,)
        if not argument.startswith("-"):
            break
        if argument not in FLAGS and "=" not in argument:
            next(pending, None)
    return COMMANDS


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"daskpki {__version__}")
        raise typer.Exit


def options(
    ctx: typer.Context,
    given: GlobalOptions = GlobalOptions(),
    version: Annotated[  # noqa: ARG001 - answered by its callback
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version, and exit.")
    ] = False,
) -> None:
    """A certificate authority and secrets manager for Dask clusters.

    A first cluster on this machine:

    [bold]daskpki init-ca --with scheduler,worker,client/alice[/bold]
    """
    if given.quiet:
        import logging

        ours = logging.getLogger("daskpki")
        ctx.call_on_close(partial(ours.setLevel, ours.level))  # a program may run more than one command
        ours.setLevel(logging.ERROR)
    if given.ca_sha256 is not None:  # an empty option is malformed, and no missing pin
        from daskpki.pki.pem import parse_fingerprint

        given = given._replace(ca_sha256=parse_fingerprint(given.ca_sha256))
    output = Output(given.as_json, given.quiet, given.verbose, repeat=ctx.obj or str)
    ctx.obj = Invocation(given, output, command=ctx.invoked_subcommand or "")
