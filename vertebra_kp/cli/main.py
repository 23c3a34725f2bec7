# PYTHON_ARGCOMPLETE_OK
"""``vertebra-kp COMMAND``: finds the command, runs it, and turns errors into one line and an exit code."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import argcomplete

from vertebra_kp.cli.arguments import ARGUMENTS, UsageError, add
from vertebra_kp.cli.commands import COMMANDS, GROUPS
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.exit_codes import CTRL_C, DONE, FAILED, MEANINGS

PROGRAM = "vertebra-kp"


def main(words: Sequence[str] | None = None) -> int:
    """Run a command as from a shell; returns its exit code (``core/exit_codes.py``)."""
    try:
        return _run(words)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return CTRL_C


def _run(words: Sequence[str] | None) -> int:
    parser = build_parser()
    argcomplete.autocomplete(parser)
    arguments, unknown = parser.parse_known_args(words)
    command = COMMANDS[arguments.command]
    own_parser: argparse.ArgumentParser = vars(arguments).pop("parser")
    if unknown:
        own_parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    complete(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        check_needs(arguments)
        code = import_module(f"vertebra_kp.cli.{command.module}").run(arguments)
        sys.stdout.flush()
        return code or DONE
    except UsageError as error:
        own_parser.error(str(error))
    except BrokenPipeError:  # who reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; completion, tests and the command reference read it, too."""
    codes = "; ".join(f"{code} {meaning}" for code, meaning in MEANINGS.items())
    listed = [
        line
        for group, commands in GROUPS.items()
        for line in (f"{group}:", *(f"  {command.name:<17}{command.help}" for command in commands), "")
    ]
    parser = argparse.ArgumentParser(
        PROGRAM,
        usage=f"{PROGRAM} COMMAND ...",
        description="\n".join(["Vertebra corners on radiographs: networks, training, measurements.", "", *listed]),
        epilog=f"{PROGRAM} COMMAND --help explains a command. Exit codes:\n{codes}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="version and commit, then stop")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", prog=PROGRAM, help=argparse.SUPPRESS
    )
    for command in COMMANDS.values():
        about = f"{command.help[0].upper()}{command.help[1:]}. {command.about}"
        own = commands.add_parser(command.name, description=about, help=command.help)
        own.set_defaults(parser=own)
        for item in command.takes.split():
            names, required = item.removesuffix("!").split("|"), item.endswith("!")
            if len(names) == 1:
                add(own, names[0], required=required)
            else:
                group = own.add_mutually_exclusive_group(required=required)
                for name in names:
                    add(group, name)
    return parser


class _Version(argparse.Action):
    """Asks git only when it is wanted."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from vertebra_kp.core.provenance import code_version

        print(PROGRAM, code_version())
        parser.exit()


def complete(arguments: argparse.Namespace) -> None:
    """Put in the defaults that each command has for itself."""
    for name, default in COMMANDS[arguments.command].defaults.items():
        if vars(arguments)[_place(name)] is None:
            setattr(arguments, _place(name), default)


def check_needs(arguments: argparse.Namespace) -> None:
    """Raises UsageError for an argument that says nothing without another one."""
    given = vars(arguments)
    for name, needed in COMMANDS[arguments.command].needs.items():
        if _given(given, name) and not _given(given, needed):
            raise UsageError(f"--{name} needs --{needed}")


def _given(arguments: dict[str, object], name: str) -> bool:
    value = arguments[_place(name)]
    return value is not None and value is not False and value != []


def _place(name: str) -> str:
    """Where argparse puts an argument."""
    return ARGUMENTS[name].get("dest", name.replace("-", "_"))


if __name__ == "__main__":
    sys.exit(main())
