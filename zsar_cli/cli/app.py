"""The ``zsar`` command: four subcommands, one way to fail."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from zsar_cli import __version__
from zsar_cli.cli import console
from zsar_cli.cli.embed_prompts import embed_prompts
from zsar_cli.cli.eval import evaluate
from zsar_cli.cli.predict import predict
from zsar_cli.cli.train import train
from zsar_cli.errors import ZsarError

USAGE, INTERRUPTED = 2, 130

app = typer.Typer(
    name="zsar",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("predict")(predict)
app.command("train")(train)
app.command("eval")(evaluate)
app.command("embed-prompts")(embed_prompts)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.out(f"zsar {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on stderr but errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Name what happens in a video, with labels nobody trained a model on.

    Example:  zsar predict video.mp4 --label "arm wrestling" --label "shooting a basketball"
    """
    console.configure(quiet=quiet, verbose=verbose)


def main() -> None:
    """Run the command and exit: 0 all well, 1 some inputs failed, 2 wrong usage, 130 interrupted."""
    debug = "--debug" in sys.argv[1:]
    try:
        app()
    except ZsarError as error:
        if debug:
            raise
        console.error(str(error))
        sys.exit(USAGE)
    except BrokenPipeError:
        console.silence_broken_pipe()
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except MemoryError:
        console.error("Out of memory. Try a smaller --batch-size, fewer --frames or a smaller --model.")
        sys.exit(1)
    except OSError as error:
        if debug:
            raise
        console.error(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.")
        sys.exit(1)
