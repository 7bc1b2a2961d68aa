"""What people and other programs wrote, checked against a pydantic model; mistakes as this program's own sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from zsar_cli.errors import UsageError, shown

MOST_CLASSES = 100_000
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
Model = TypeVar("Model", bound=BaseModel)
Location = tuple[Any, ...]


class Checked(BaseModel):
    """A map whose keys are all known and whose numbers are finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


def _no_truth(value: Any) -> Any:
    """Refuse true and false for numbers, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def one_line(value: str) -> str:
    """Check a text, for a pydantic validator: a name or path that may be printed."""
    if UNPRINTABLE.search(value):
        raise ValueError("must be one line of text without control characters")
    return value


Whole = Annotated[int, BeforeValidator(_no_truth)]
Number = Annotated[float, BeforeValidator(_no_truth)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S"), AfterValidator(one_line)]
FileName = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(one_line)]


def _template(value: str) -> str:
    if value.count("{}") != 1:
        raise ValueError("must have exactly one {} for the label")
    return " ".join(value.split())


TemplateList = Annotated[
    tuple[Annotated[str, Field(max_length=1000), AfterValidator(_template)], ...],
    Field(min_length=1, max_length=1000),
]


class TemplateTexts(Checked):
    """Prompt templates, as a model keeps those that it was trained with."""

    positive: TemplateList
    negative: TemplateList


class TemplateFile(TemplateTexts):
    """Prompt templates, as their file has them."""

    name: Annotated[Name, AfterValidator(str.strip)]


def _several(value: Any) -> Any:
    """Take one text or several, as people write them."""
    return () if value is None else (value,) if isinstance(value, str) else value


def _lists(value: Any) -> Any:
    """Read a split that is no more than its lists."""
    return {"lists": value} if isinstance(value, (str, list)) else value


FileNames = Annotated[tuple[FileName, ...], Field(max_length=1000), BeforeValidator(_several)]


class SplitFile(Checked):
    """A split of a data set, as its definition's file has it."""

    lists: FileNames = ()
    folders: FileNames = ()
    format: Name | None = None
    fold: Annotated[Whole, Field(ge=1, le=1000)] = 1
    label_column: Name | None = None


class DefinitionFile(Checked):
    """A data set's definition, as its file has it."""

    name: Name
    classes: Annotated[list[str], Field(max_length=MOST_CLASSES)] | FileName | None = None
    splits: dict[Name, Annotated[SplitFile, BeforeValidator(_lists)]] | None = None
    subsets: dict[Name, FileNames] | None = None
    root: FileName | None = None
    page: FileName | None = None
    rendered: bool = False
    format: Name | None = None


Share = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[Whole, Field(ge=0, le=1_000_000_000)]


class BoundFile(Checked):
    """A least confidence, and what it gave on the videos that it was found on."""

    min_confidence: Share
    answered: Count
    reached: Share
    interval95: Annotated[tuple[Share, ...], Field(min_length=2, max_length=2)]


class CalibrationEntry(Checked):
    """The bounds of one model, labels, templates and number of frames."""

    weights: Name
    labels: Name
    templates: Name
    frames: Annotated[Whole, Field(ge=1, le=512)]
    videos: Count
    unknown_videos: Count
    bounds: dict[Name, BoundFile | None]
    model: FileName
    zsar: Name
    made: Name


class CalibrationFile(Checked):
    """``calibration.yaml``."""

    format: Literal[1]
    calibrations: Annotated[tuple[CalibrationEntry, ...], Field(max_length=1000)]


class ManifestFile(Checked):
    """The manifest of a part of sharded predictions."""

    format: Literal[1]
    part: FileName
    shard: Count
    shards: Annotated[Whole, Field(ge=1, le=100_000)]
    bytes: Annotated[Whole, Field(ge=0)]
    videos: Count
    failed: Count
    errors: dict[Name, Count]
    inputs: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    made_with: dict[str, Any]


# By the kind of pydantic's error; {} are the entries of its context.
SENTENCES = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a string in quotes",
    "string_unicode": "must be a string",
    "string_pattern_mismatch": "must not be empty",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters long",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "literal_error": "must be {expected}",
    "none_required": "must be left out",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a map",
    "model_type": "must be a map",
    "model_attributes_type": "must be a map",
    "too_short": "must have {min_length} or more entries",
    "too_long": "must have at most {max_length} entries",
}


def check(
    model: type[Model],
    content: Any,
    where: str,
    line_of: Callable[[Location], int] | None = None,
    *,
    strict: bool = False,
) -> Model:
    """Check the content against a pydantic model.

    Args:
        where: the file, for the message.
        line_of: the line of the value that a location (keys and numbers, from the outside in) leads to.
        strict: whether a number must be one, and no text that says one.

    Raises:
        UsageError: the first mistake in one sentence, with file, line and key.
    """
    try:
        return model.model_validate(content, strict=strict)
    except ValidationError as error:
        # extra keys first: a key that is missing is often there under another name
        first = min(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
        location = _keys(first, content)
        place = f"{where}, line {line_of(location)}" if line_of else where
        raise UsageError(f"{place}: {_sentence(model, first, location)}.") from None


def _keys(error: Mapping[str, Any], content: Any) -> Location:
    """Locate an error by keys and numbers alone: pydantic also names the kinds that it tried for a value."""
    found: list[Any] = []
    here, last = content, error["loc"][-1] if error["type"] == "missing" else None
    for part in error["loc"]:
        if isinstance(here, Mapping) and (part in here or part == last):
            here = here.get(part)
        elif isinstance(here, Sequence) and isinstance(part, int) and (part < len(here) or part == last):
            here = here[part] if part < len(here) else None
        else:
            continue
        found.append(part)
    return tuple(found)


def _sentence(model: type[BaseModel], error: Mapping[str, Any], location: Location) -> str:
    key = ".".join(str(part)[:60] for part in location) or "the whole"
    key = key if key.isprintable() else shown(key)
    kind = error["type"]
    if kind == "missing":
        return f"{key} is missing"
    if kind == "extra_forbidden":
        fields = _fields_of(model, location)
        return f"unknown field {shown(location[-1])}; the fields are {', '.join(fields)}"
    return f"{key} {rule(error)}, not {shown(error['input'])}"


def rule(error: Mapping[str, Any]) -> str:
    """Say what a value must be, from one of pydantic's errors about it: "must be a whole number"."""
    context = error.get("ctx", {})
    if error["type"] != "value_error":
        return SENTENCES.get(error["type"], "is not what it must be").format(**context).replace("'", "")
    said = str(context["error"])
    if choices := re.search(r" is not one of (.*?)\.?$", said, re.DOTALL):  # as Typer says it
        *others, last = (choice.strip().strip("'") for choice in choices[1].split(", "))
        return f"must be {', '.join(others)} or {last}" if others else f"must be {last}"
    return said


def _fields_of(model: type[BaseModel], location: Location) -> list[str]:
    """List the fields that stand beside an unknown one."""
    found = model
    for part in location[:-1]:
        field = found.model_fields.get(str(part))
        inner = getattr(field, "annotation", None)
        kinds = [inner, *getattr(inner, "__args__", ())]
        found = next(
            (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), found
        )
    return list(found.model_fields)
