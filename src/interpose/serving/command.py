"""`interpose serve module:app`: the options of `interpose.serve`, with uvicorn's words."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from interpose.mechanisms.arguments import Arguments
from interpose.serving.options import GRACE, LEVELS, LOOPS, PORT, STANDARD, CannotServe, Options, refusal
from interpose.serving.start import start

WRONG = 2  # exit status for what cannot be served, as argparse has it


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; gives the exit status: 0 after a signal, 2 if it cannot be served, with one line that says why."""
    given = parser().parse_args(arguments)
    try:
        options = options_of(given)
    except ValueError as error:
        return _refused(error)
    sys.path.insert(0, given.app_dir)
    try:
        return start(given.app, given.stack, options)
    except CannotServe as error:
        return _refused(error)


def _refused(error: ValueError) -> int:
    print(refusal(error), file=sys.stderr)  # noqa: T201  it is a command
    return WRONG


def options_of(given: argparse.Namespace) -> Options:
    """The flags as options. ValueError for bad ones."""
    return Options(**{field.name: getattr(given, field.name) for field in dataclasses.fields(Options)})


def parser() -> Arguments:
    """The options, each with the default of `Options`."""
    parser = Arguments(prog="interpose serve", description="Serve gRPC, and stop without losing a call.")
    add = parser.add_argument
    add("app", metavar="module:app", help="a function that registers servicers, a list of them, or a ready server")
    add("--app-dir", default=".", metavar="DIR", help="the folder that holds the module (default: this one)")
    add("--stack", default=(), metavar="module:stack", help="interceptors around all of it, the first outermost")
    add("--policy", metavar="FILE", help="a file whose section server is inside of the stack; again at SIGHUP")
    add("--policy-allow", action=_Another, metavar="module:name", help="the policy may import this")
    add("--policy-env", action=_Another, metavar="NAME", help="the policy may read this variable")
    add("--factory", action="store_true", help="module:app is a function that returns the application")
    where = parser.add_argument_group("where to listen")
    where.add_argument("--host", help="a name or an address (default: 127.0.0.1)")
    where.add_argument("--port", type=int, help=f"0: any that is free (default: {PORT})")
    where.add_argument("--uds", metavar="PATH", help="a unix socket, instead of a port")
    where.add_argument("--tls-key", metavar="FILE", help="the server's key in PEM; read anew when it changes")
    where.add_argument("--tls-cert", metavar="FILE", help="its certificate chain in PEM")
    where.add_argument("--tls-client-ca", metavar="FILE", help="let in clients with a certificate of this CA only")
    how = parser.add_argument_group("how to run")
    how.add_argument("--loop", choices=LOOPS, help="none: grpc.server on threads (default: as the application needs)")
    how.add_argument("--threads", type=int, metavar="N", help="threads of a sync server (default: 32)")
    how.add_argument("--workers", type=int, metavar="N", help="processes that share the port (default: this one)")
    how.add_argument("--reload", action="store_true", help="start anew when a Python file changes")
    how.add_argument("--reload-dir", dest="reload_dirs", action=_Another, metavar="DIR", help="watch this folder")
    how.add_argument("--env-file", metavar="FILE", help="set the variables NAME=value of this file first")
    how.add_argument("--log-level", choices=LEVELS, help="(default: info)")
    how.add_argument("--log-config", metavar="FILE", help="JSON for logging's dictConfig, or a file for fileConfig")
    stopping = parser.add_argument_group("limits, and how to stop")
    stopping.add_argument(
        "--drain-delay", type=float, metavar="SECONDS", help="serve on as NOT_SERVING before new calls are refused"
    )
    stopping.add_argument(
        "--timeout-graceful-shutdown",
        type=float,
        metavar="SECONDS",
        help=f"for the calls under way, before they are ended (default: {GRACE:g})",
    )
    stopping.add_argument("--limit-concurrency", type=int, metavar="N", help="calls in hand; more are refused")
    stopping.add_argument("--max-connection-age", type=float, metavar="SECONDS", help="then clients connect anew")
    services = parser.add_argument_group("standard services, of the extra server")
    for name in STANDARD:
        services.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=argparse.SUPPRESS)
    services.add_argument("--ready", action=_Another, metavar="module:check", help="health follows this function")
    services.add_argument("--bare", type=_names, metavar="NAMES", help="those outside of the stack: health,reflection")
    add("--option", dest="options", type=_pair, action=_Another, metavar="NAME=VALUE", help="for grpc's own server")
    parser.set_defaults(**{field.name: field.default for field in dataclasses.fields(Options)})
    return parser


class _Another(argparse.Action):
    """A flag that may be given several times: each adds to a tuple."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, (*getattr(namespace, self.dest), values))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _pair(text: str) -> tuple[str, Any]:
    """One option of grpc's: whole numbers are numbers."""
    name, _, value = text.partition("=")
    if not (name and value):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no option: write NAME=VALUE, like grpc.max_receive_message_length=8388608"
        )
    return name, int(value) if value.lstrip("-").isdigit() else value
