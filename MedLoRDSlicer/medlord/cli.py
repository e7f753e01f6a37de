"""The command line: `medlord VERB ...`, one thin command per public function.

Exit codes: 0 done, 1 the engine failed, 2 bad input, 3 not enough memory, 4 weights, 130 cancelled. A failure says
one line on stderr; --debug adds the traceback. stdout carries results only.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import textwrap
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NoReturn

from . import __version__
from .commands.console import Console
from .errors import InputError, MedlordError, error_from_code

VERBS = (
    "synthesize",
    "phantom",
    "models",
    "segment",
    "check",
    "reference",
    "evaluate",
    "review",
    "demo",
    "bench",
    "train",
    "worker",
)


class _WholeNames(argparse.HelpFormatter):
    """Help whose lines never end within a name such as dpm-solver++."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, without the usage."""

    def __init__(self, **options):
        super().__init__(**{"formatter_class": _WholeNames, **options})

    def error(self, message: str) -> NoReturn:
        # Every message is printed after the program's name: only the verb is left to say.
        verb = self.prog.removeprefix("medlord").strip()
        raise InputError(
            f"{verb}: {message}. Try {self.prog} --help." if verb else f"{message}. Try {self.prog} --help."
        )


def add_common_arguments(parser: argparse.ArgumentParser, default: object = False) -> None:
    """--debug and --quiet, which every command takes."""
    parser.add_argument(
        "--debug", action="store_true", default=default, help="show the traceback of an error"
    )
    parser.add_argument(
        "--quiet", "-q", action="store_true", default=default, help="no progress and no notes"
    )


def verb_module(verb: str) -> ModuleType:
    """The module of a verb."""
    return importlib.import_module(f".commands.{verb}", __package__)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = OneLineParser(
        prog="medlord",
        description="Synthetic CT from a segmentation. For research; not for clinical use.",
        epilog="medlord VERB --help describes a verb.",
    )
    parser.add_argument("--version", action="version", version=f"medlord {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    add_common_arguments(parser)
    add_common_arguments(common, default=argparse.SUPPRESS)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        module = verb_module(verb)
        module.add_arguments(verbs.add_parser(verb, help=module.SUMMARY, parents=[common]))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in VERBS and getattr(verb_module(words[0]), "OWN_OPTIONS", False):
        return verb_module(words[0]).run(argparse.Namespace(rest=words[1:]), Console()) or 0
    console = Console()

    def run() -> int | None:
        options = build_parser().parse_args(words)
        console.quiet = options.quiet
        return verb_module(options.verb).run(options, console)

    return guarded(run, console, debug="--debug" in words)


def guarded(run: Callable[[], int | None], console: Console, debug: bool = False) -> int:
    """Run a command; what it raises becomes one line on `console` and the exit code that is returned."""
    try:
        return run() or 0
    except KeyboardInterrupt:
        console.error("Cancelled.")
        return 130
    except BrokenPipeError:
        # Whoever read our results has left (for example `| head`): nothing is wrong and nothing can be said.
        sys.stderr.close()
        return 1
    except Exception as error:
        if debug:
            import traceback

            traceback.print_exc()
        failure = _as_family(error, debug)
        console.error(f"medlord: {' '.join(str(failure).split())}")
        return failure.exit_code


def _as_family(error: Exception, debug: bool) -> MedlordError:
    """Any error as one of the family, with a line for the user."""
    if isinstance(error, MedlordError):
        return error
    from .worker_verbs import describe_error

    code, message, _ = describe_error(error)
    return error_from_code(code, message if debug else f"{message} (--debug shows where.)")


if __name__ == "__main__":
    raise SystemExit(main())
