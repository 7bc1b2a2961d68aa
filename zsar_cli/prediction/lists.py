"""Lists of videos, read as a stream: text, CSV, JSON Lines and Parquet, on this disk or in a storage."""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import IO, Any

from zsar_cli.encodings import MARKS, encoding_of
from zsar_cli.errors import UsageError, VideoError, shown
from zsar_cli.prediction.parquet import require_pyarrow
from zsar_cli.text.tables import word
from zsar_cli.video.address import beside, is_remote, path_of, public, scheme_of
from zsar_cli.video.find import ending

_LINE_END = re.compile(rb"[\r\n]")
TABLE_MARKS = ",\t;|"
ENDINGS = {
    **dict.fromkeys(("txt", "lst", "list"), "text"),
    **dict.fromkeys(("csv", "tsv"), "csv"),
    **dict.fromkeys(("jsonl", "ndjson"), "jsonl"),
    "parquet": "parquet",
}
COLUMNS = (
    *("video", "videos", "path", "url", "uri", "file", "filename", "filepath", "location"),
    *(
        "videopath",
        "videourl",
        "videouri",
        "videofile",
        "videos3",
        "s3uri",
        "s3path",
        "gcsuri",
        "src",
        "source",
    ),
)


def kind_of_list(given: str) -> str | None:
    """Tell how a list is written, by its ending (``.gz`` after it, too): "text", "csv", "jsonl" or "parquet".

    None where it is no list: it has another ending, or there is no such file.
    """
    name = path_of(given) if is_remote(given) else given
    end = ending(name)
    kind = ENDINGS.get(ending(os.path.splitext(name)[0]) if end == "gz" else end)
    if kind == "parquet" and end == "gz":
        return None
    return kind if kind is None or is_remote(given) or os.path.isfile(given) else None


def read_list(given: str, column: str | None = None, *, null: bool = False) -> Iterator[str]:
    """Yield what a list names, line by line, as it can be opened from here.

    A relative path starts from the list's folder if the list lies in a storage, or if it leads nowhere from the
    current folder. An address in storage stays as it is. Blank lines and empty cells are left out.

    Args:
        given: a file, or an address; an object is copied to this disk before, as reading takes as long as the run.
        column: the name of the column, where there are columns.
        null: the paths of a text end with NUL.

    Raises:
        UsageError: it cannot be read, has no such column, or a line is none of such a list.
    """
    kind = kind_of_list(given)
    if column is not None and kind == "text":
        raise UsageError(
            f"{public(given)} is a text with one path a line and has no columns; remove --column."
        )
    with contextlib.ExitStack() as stack:
        path = _local_copy(stack, given)
        try:
            if kind == "parquet":
                found: Iterator[str] = _parquet_column(path, given, column)
            else:
                opened = gzip.open if ending(path_of(given) if is_remote(given) else given) == "gz" else open
                file: Any = stack.enter_context(opened(path, "rb"))
                if kind == "text":
                    found = entries(file, null, public(given))
                else:
                    found = (_csv_column if kind == "csv" else _json_values)(
                        _as_text(file, given), given, column
                    )
            for entry in found:
                yield _placed(entry, given)
        except (OSError, EOFError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"{public(given)} cannot be read: {reason.lower()}.") from error


def _local_copy(stack: contextlib.ExitStack, given: str) -> str:
    if not is_remote(given):
        return given
    from zsar_cli.video.fetch import Fetcher

    fetcher = Fetcher()
    stack.callback(fetcher.close)
    try:
        return fetcher.path(fetcher.start(given))
    except VideoError as error:
        raise UsageError(f"{public(given)} cannot be read: {error.message}.") from None


def _placed(entry: str, given: str) -> str:
    if scheme_of(entry) is not None or os.path.isabs(entry):
        return entry
    if is_remote(given):
        return beside(given, entry)
    if os.path.lexists(entry):
        return entry
    joined = os.path.join(os.path.dirname(given), entry)
    return joined if os.path.lexists(joined) else entry


# --- columns ------------------------------------------------------------------------------------------------------


def _column(names: Sequence[str], column: str | None, given: str) -> str:
    """Choose the column that holds the videos. UsageError where there is none, or more than one may be meant."""
    if column is not None:
        if column in names:
            return column
        raise UsageError(f"{public(given)} has no column {column!r}; {_those(names)}.")
    for wanted in COLUMNS:
        if found := [name for name in names if word(name) == wanted]:
            return found[0]
    if len(names) == 1:
        return names[0]
    raise UsageError(
        f"{public(given)} has no column named video, path or url; name one by --column: {_those(names)}."
    )


def _those(names: Sequence[str]) -> str:
    listed = ", ".join(shown(name) for name in names[:8])
    return f"it has {listed}{', ...' if len(names) > 8 else ''}" if names else "it has no columns"


def _as_text(file: IO[bytes], given: str) -> IO[str]:
    name, length = encoding_of(file.read(4096))
    file.seek(length)
    return io.TextIOWrapper(
        file, encoding=name, errors="surrogateescape" if name == "utf-8" else "strict", newline=""
    )


def _csv_column(text: IO[str], given: str, column: str | None) -> Iterator[str]:
    first = text.readline()
    said = re.fullmatch(r'\s*"?sep=(.)"?\s*', first, re.IGNORECASE)  # of Excel
    if said:
        first = text.readline()
    mark = (
        said[1] if said else max(TABLE_MARKS, key=lambda mark: (first.count(mark), -TABLE_MARKS.index(mark)))
    )

    def rows(start: str) -> Iterator[list[str]]:
        def lines() -> Iterator[str]:
            if start:
                yield start
            yield from text

        reader = csv.reader(lines(), delimiter=mark, strict=True, skipinitialspace=True)
        try:
            yield from reader
        except csv.Error as error:
            raise UsageError(f"{public(given)}, line {reader.line_num + bool(said)}: {error}.") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{public(given)} does not stay text ({error.reason}).") from error

    table = rows(first)
    header = [cell.strip() for cell in next(table, [])]
    if column is None and len(header) == 1 and word(header[0]) not in COLUMNS:  # a list without a header
        place, more = 0, [header]
    else:
        place, more = header.index(_column(header, column, given)), []
    for row in chain(more, table):
        if len(row) > place and (cell := row[place].strip()):
            yield cell


def _json_values(text: IO[str], given: str, column: str | None) -> Iterator[str]:
    chosen = column
    for number, line in enumerate(text, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"{public(given)}, line {number} is not JSON; each line must be an object."
            ) from error
        if isinstance(value, dict):
            if chosen is None or chosen not in value:
                chosen = _column(list(value), column, f"{public(given)}, line {number},")
            value = value[chosen]
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise UsageError(f"{public(given)}, line {number}: {shown(value)} is not a path.")
        yield value


def _parquet_column(path: str, given: str, column: str | None) -> Iterator[str]:
    require_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Pages are read as they are needed: a row group may hold all of millions of rows
        with pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
            chosen = _column(file.schema_arrow.names, column, given)
            kind = file.schema_arrow.field(chosen).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (
                pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
            ):
                raise UsageError(f"{public(given)}: the column {chosen!r} holds {kind}, not paths.")
            for batch in file.iter_batches(batch_size=1024, columns=[chosen], use_threads=False):
                yield from (value for value in batch.column(0).to_pylist() if value)
    except pa.ArrowException as error:
        raise UsageError(f"{public(given)} is not a readable Parquet file; write it again.") from error


# --- lines --------------------------------------------------------------------------------------------------------


def entries(stream: IO[bytes], null: bool, name: str = "Standard input") -> Iterator[str]:
    """Yield paths as soon as each is complete; bytes that are not UTF-8 survive.

    Raises:
        UsageError: what comes is no list of paths.
    """
    rest = b""
    for chunk in _pieces(stream, null, name):
        *complete, rest = (rest + chunk).split(b"\0") if null else _LINE_END.split(rest + chunk)
        for entry in complete:
            yield from _entry(entry, null)
    yield from _entry(rest, null)


def _pieces(stream: IO[bytes], null: bool, called: str) -> Iterator[bytes]:
    """Read the list as UTF-8, or as the bytes it has; PowerShell writes UTF-16."""
    # Unbuffered: a thread that waits inside a buffered reader's lock would stop the interpreter from ending
    source = getattr(stream, "raw", stream)
    chunk = source.read(65536)
    while (
        len(chunk) < 4 and any(mark.startswith(chunk) for mark, _ in MARKS) and (more := source.read(65536))
    ):
        chunk += more
    name, length = ("utf-8", 0) if null else encoding_of(chunk)
    decoder = codecs.getincrementaldecoder(name)() if name != "utf-8" else None
    chunk = chunk[length:]
    while chunk:
        if decoder is not None:
            try:
                chunk = decoder.decode(chunk).encode("utf-8", "surrogatepass")
            except UnicodeDecodeError as error:
                raise UsageError(f"{called} does not stay {name[:6].upper()} text.") from error
        if (b"\0\0\0" if null else b"\0") in chunk:
            raise UsageError(
                f"{called} is not a list with one path per line. Give a video as an argument; a list from find -print0 "
                "needs --null."
            )
        yield chunk
        chunk = source.read(65536)


def _is_address(entry: bytes) -> bool:
    return scheme_of(entry.decode("utf-8", "replace")) is not None


def _entry(entry: bytes, null: bool) -> Iterator[str]:
    if not null:
        entry = entry.removeprefix(codecs.BOM_UTF8)
        bare = entry.strip()  # PowerShell fills lines up with blanks
        quoted = len(bare) > 2 and bare[:1] == bare[-1:] and bare[:1] in b"\"'"
        if quoted:
            bare = bare[1:-1]  # as Windows copies a path, and shells print one
        if (
            b"\0" not in entry
            and not os.path.lexists(entry)
            and (quoted or os.path.lexists(bare) or _is_address(bare))
        ):
            entry = bare
    if entry.strip():
        yield os.fsdecode(entry)
