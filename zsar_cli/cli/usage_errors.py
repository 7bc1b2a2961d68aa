"""Messages for errors that Typer finds in a command line."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection
from typing import Any

from zsar_cli.errors import shown

NO_ARGUMENTS = {
    "train": "only options; give a data set with --data",
    "eval": "only options; give a data set with --data, a model with --model",
    "embed-prompts": "only options; give labels with --labels FILE or --label TEXT",
}


def sentences(error: Any, command: str, commands: Collection[str]) -> str:
    """Describe an error, with a hint.

    Args:
        error: an exception of Typer or Click; its class is identified by name, as its module depends on the version.
        command: the first argument that is not an option.
        commands: the names of all commands.
    """
    if command not in commands:
        close = difflib.get_close_matches(command, commands, n=1)
        if os.path.exists(command):
            close = [f"zsar predict {command}" if command.isprintable() else "zsar predict"]
        hint = f"Did you mean {close[0]}?" if close else "See zsar --help."
    else:
        hint = f"See zsar {command} --help."
    wrong = _wrong(error, command)
    return f"{wrong if wrong.endswith(('.', '?')) else f'{wrong}.'} {hint}"


def _wrong(error: Any, command: str) -> str:
    kind, message = type(error).__name__, str(error.format_message()).strip()
    name = getattr(error, "option_name", "")
    if kind == "BadParameter" and getattr(error, "param", None) is not None:
        return _wrong_value(error)
    if kind == "MissingParameter" and getattr(error, "param", None) is not None:
        return f"{_name(error)} is missing"
    if kind == "NoSuchOption":
        close = difflib.get_close_matches(name, error.possibilities or (), n=1)
        return f"There is no option {_typed(name)}" + (f"; did you mean {close[0]}?" if close else "")
    if kind == "BadOptionUsage" and "not take a value" in message:
        return f"{name} takes no value"
    if kind == "BadOptionUsage":
        return f"{name} needs a value after it"
    if extra := re.search(r"unexpected extra arguments?(?:\(s\))? \((.*)\)$", message, re.DOTALL):
        takes = NO_ARGUMENTS.get(command, "no more arguments")
        return f"{shown(extra[1])} was not expected: zsar {command} takes {takes}"
    if unknown := re.match(r"No such command '(.*)'", message, re.DOTALL):
        return f"There is no command {shown(unknown[1])}"
    return message


def _typed(name: str) -> str:
    """Show an option as it was typed, escaped if it is not printable."""
    return name[:60] if name.isprintable() else shown(name)


def _wrong_value(error: Any) -> str:
    cause = error.__cause__
    if not hasattr(cause, "errors"):  # Typer's releases that convert values by themselves say it well
        return f"{_name(error)}: {error.message}"
    from zsar_cli.schemas import rule

    (first, *_) = cause.errors(include_url=False)
    return f"{_name(error)} {rule(first)}, not {shown(first['input'])}"


def _name(error: Any) -> str:
    """Name the option or argument, or the environment variable that set it."""
    param, context = error.param, error.ctx
    source = context.get_parameter_source(param.name) if context is not None and param.name else None
    if getattr(source, "name", "") == "ENVIRONMENT" and param.envvar:
        return f"The environment variable {param.envvar}"
    long: str = max(param.opts, key=len)
    return long if long.startswith("-") else str(param.metavar or long.upper())
