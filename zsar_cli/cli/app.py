"""The ``zsar`` command: four subcommands, imported on demand, and one handler for their errors."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from zsar_cli import __version__, distributed
from zsar_cli.cli import console
from zsar_cli.cli.threads import set_up_threads
from zsar_cli.errors import ZsarError

SOME_FAILED, USAGE, INTERRUPTED = 1, 2, 130
GLOBAL_FLAGS = ("--quiet", "-q", "--verbose", "-v", "--debug")
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@dataclass(frozen=True)
class Lazy:
    """A command that is imported when it runs, with the summary and example that ``--help`` shows before."""

    module: str
    function: str
    summary: str
    example: str


COMMANDS = {
    "predict": Lazy(
        "predict",
        "predict",
        "Recognise actions in videos.",
        'zsar predict video.mp4 --label "arm wrestling" --label "playing chess"\n'
        "  find . -name '*.mp4' | zsar predict - --labels ucf101 --output answers.jsonl\n"
        "  zsar predict video.mp4 --labels ucf101 --window 4 --stride 2\n"
        "  zsar predict video.mp4 --labels ucf101 --explain sheets\n"
        "  zsar predict video.mp4 --labels ucf101 --report answers.html",
    ),
    "train": Lazy(
        "train",
        "train",
        "Fine-tune a model on labelled videos.",
        "zsar train --config shapes --output runs/first",
    ),
    "eval": Lazy(
        "eval",
        "evaluate",
        "Evaluate a model on a data set, by standard protocols.",
        "zsar eval --model motion-tiny --report reports/first",
    ),
    "embed-prompts": Lazy(
        "embed_prompts",
        "embed_prompts",
        "Precompute label embeddings for predict.",
        "zsar embed-prompts --labels ucf101 --output ucf101.safetensors\n"
        "  zsar predict video.mp4 --prompts ucf101.safetensors",
    ),
}


class ReaderLeftError(Exception):
    """The reader of standard output, such as ``head``, has closed the pipe."""


class LazyCommands(TyperGroup):
    """A group that imports a command only when it runs, so that ``--help`` is fast."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List the commands' names."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import a command by name; None if there is no such command."""
        return _command(cmd_name) if cmd_name in COMMANDS else None

    def invoke(self, ctx: Any) -> Any:
        """Run the command; turn BrokenPipeError, on which Click would exit with 1, into ReaderLeftError."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderLeftError from error

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands at the end of ``zsar --help``."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.summary) for name, lazy in COMMANDS.items()])


@cache
def _command(name: str) -> Any:
    lazy = COMMANDS[name]
    function = getattr(importlib.import_module(f"zsar_cli.cli.{lazy.module}"), lazy.function)
    part = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=CONTEXT)
    part.command(name, help=_with_example(lazy.example, inspect.getdoc(function) or ""))(function)
    return typer.main.get_command(part)


def _with_example(example: str, text: str) -> str:
    # \b: as it stands, not filled up to the width, so that it can be pasted
    return f"\b\nExample:\n  {example}\n\n{text}"


app = typer.Typer(
    cls=LazyCommands,
    name="zsar",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=CONTEXT,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.out(f"zsar {__version__}")
        raise typer.Exit


@app.callback(
    help=_with_example(
        COMMANDS["predict"].example.splitlines()[0],
        "Zero-shot video action recognition: any labels, any CLIP, no training.\n\n"
        "The options below may be given before or after the command.",
    )
)
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Print only errors to stderr, including those of single videos."),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Print to stderr the device, precision, threads, decoder, cache hits and the time of each "
            "stage.",
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Apply the options that every command accepts."""
    # Of several processes, one speaks; errors are everybody's
    console.configure(quiet=quiet or distributed.rank() > 0, verbose=verbose)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 all well, 1 some inputs failed, 2 wrong usage, 130 interrupted."""
    _open_closed_streams()
    console.degrade_streams()
    set_up_threads()
    given = list(sys.argv[1:] if arguments is None else arguments)
    arguments = _flags_first(given)
    try:
        sys.exit(app(arguments, prog_name="zsar", standalone_mode=False) or 0)
    except Exception as error:
        if "--debug" in arguments and not isinstance(error, ReaderLeftError):
            raise
        sys.exit(_explain(error, arguments))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        console.reset()


def _open_closed_streams() -> None:
    """Open the null device for a stream that the caller closed (``2>&-``), before any file of ours takes its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))


def _flags_first(arguments: list[str]) -> list[str]:
    """Move ``--quiet`` and other global flags before the command, so that they also work after it."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    before = arguments[:end]
    flags = [argument for argument in before if argument in GLOBAL_FLAGS]
    rest = [argument for argument in before if argument not in GLOBAL_FLAGS]
    return flags + _with_addresses(rest) + arguments[end:]


def _with_addresses(arguments: list[str]) -> list[str]:
    """Give a ``--ray`` that no address follows the default one."""
    if "--ray" not in arguments:
        return arguments
    from zsar_cli.cluster.connect import RUNNING, is_address

    found: list[str] = []
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        found.append(argument)
        if argument == "--ray" and not is_address(following):
            found.append(RUNNING)
    return found


def _explain(error: Exception, arguments: list[str]) -> int:
    """Print an error in one line and return the exit code."""
    if isinstance(error, ReaderLeftError):
        console.silence_stdout()
        return 0
    if isinstance(error, ZsarError):
        console.error(str(error))
        return USAGE
    if isinstance(error, typer.Abort):
        return INTERRUPTED
    if hasattr(error, "format_message"):  # Typer's own: a wrong option or argument
        return _explain_usage(error, arguments)
    if isinstance(error, MemoryError):
        console.error("Out of memory. Use a smaller --batch-size, fewer --frames or a smaller --model.")
        return SOME_FAILED
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        console.error(f"{where}{(error.strerror or str(error)).lower()}.")
        return SOME_FAILED
    message = (str(error).strip().splitlines() or [""])[0]
    console.error(
        f"Unexpected error ({type(error).__name__}: {message[:300]}). "
        "Run the command again with --debug for the traceback, and please report it."
    )
    return SOME_FAILED


def _explain_usage(error: Any, arguments: list[str]) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # the message is the help itself
        console.plain(error.format_message().strip())
        return USAGE
    from zsar_cli.cli.usage_errors import sentences

    given = next((argument for argument in arguments if not argument.startswith("-")), "")
    console.error(sentences(error, given, COMMANDS))
    return USAGE
