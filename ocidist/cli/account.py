"""login, logout."""

from __future__ import annotations

import argparse
import sys

from ocidist.cli.context import Context, ask_password
from ocidist.errors import UsageError


def configure_login(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", metavar="HOST", nargs="?", default="docker.io", help="a registry (docker.io)")
    parser.add_argument("--password-stdin", action="store_true", help="read the password from stdin")


def run_login(args: argparse.Namespace, context: Context) -> None:
    name, colon, password = (args.user or "").partition(":")
    if not name:
        if not sys.stdin.isatty() or args.password_stdin:
            raise UsageError("login needs a user; write -u USER")
        name = input("User: ").strip()
    if args.password_stdin:
        context.announce_stdin("the password, which will show,")
        password = sys.stdin.read().rstrip("\r\n")
    elif not colon:
        if not sys.stdin.isatty():
            raise UsageError(
                f"login needs the password of {name!r}; use --password-stdin, or write -u {name}:PASSWORD"
            )
        password = ask_password(name)
    args.user = None  # what was typed is checked below; it isn't this client's own credential
    with context.quiet() as scope:
        where = context.client.login(args.host, name, password, scope=scope)
    context.warn(f"login succeeded; kept in {where}")


def configure_logout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", metavar="HOST", nargs="?", default="docker.io", help="a registry (docker.io)")


def run_logout(args: argparse.Namespace, context: Context) -> None:
    if context.client.logout(args.host):
        context.warn(f"credentials of {args.host} removed")
    else:
        context.warn(f"no credentials of {args.host} were kept")
