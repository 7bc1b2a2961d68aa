"""Records as parquet: a row for each video, as pandas, Polars, DuckDB and Spark read it; and back again.

The columns are those of the record (docs/archives.md); in front of them the best label, behind them the error in
two columns. pyarrow is imported when a file is written or read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from zsar_cli.errors import UsageError
from zsar_cli.prediction.records import MADE_WITH, OBJECT, rounded

if TYPE_CHECKING:
    import pyarrow as pa

KEY = b"zsar_made_with"  # of a file's metadata
AT_ONCE = 500  # rows that are converted together
ROWS, SIZE = 20_000, 64_000_000  # of a row group, whichever comes first


def require_pyarrow() -> None:
    """Raise UsageError where pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise UsageError("Parquet needs the package pyarrow: pip install 'zsar-cli[parquet]'.") from None


def schema(
    *, windows: bool = False, embedding: int | None = None, made_with: Mapping[str, Any] | None = None
) -> pa.Schema:
    """Make the schema of answers to whole videos, or of ``windows``; with embeddings of that many numbers."""
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    found = pa.list_(pa.struct([("label", text), ("score", number), ("yes", number)]))
    own: list[Any] = [("predictions", found), ("unknown", number), ("answer", text)]
    own += [("answers", pa.list_(text))]
    if windows:
        segment = pa.struct([("start", number), ("end", number), *own])
        parts = [("segments", pa.list_(segment))]
    else:
        parts = [("label", text), ("score", number), ("yes", number), *own]
    if embedding is not None:
        parts += [("embedding", pa.list_(pa.float32(), embedding or -1))]
    about = [
        ("duration", number),
        ("frames", pa.int64()),
        ("min_confidence", number),
        ("assumed_fps", number),
    ]
    about += [("warning", text), ("written", text), ("error_kind", text), ("error_message", text)]
    about += [(OBJECT, pa.struct([("size", pa.int64()), ("etag", text)]))]
    metadata = None if made_with is None else {KEY: json.dumps(made_with).encode()}
    return pa.schema([("video", text), *parts, *about], metadata)


def to_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """Make the row of a record; what it has nothing for is left out."""
    row = {name: value for name, value in record.items() if name not in ("error", MADE_WITH)}
    if "error" in record:
        return {
            **row,
            **{f"error_{name}": as_text(value) for name, value in record["error"].items()},
        } | _name(row)
    if record.get("predictions"):
        row |= record["predictions"][0]
    if "embedding" in record:
        import numpy as np

        row["embedding"] = np.asarray(record["embedding"], np.float32)
    return row | _name(row)


def _name(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: as_text(row[name]) for name in ("video", "warning", "written") if name in row}


def as_text(value: str) -> str:
    r"""Write bytes of a file's name that are no UTF-8 as ``\udc80``: a column of text has no place for them."""
    return value.encode("utf-8", "backslashreplace").decode()


def to_record(row: Mapping[str, Any]) -> dict[str, Any]:
    """Make the record of a row that was read."""
    known = {name: value for name, value in row.items() if value is not None}
    if "error_kind" in known:
        error = {"kind": known["error_kind"], "message": known.get("error_message", "")}
        return {"video": known["video"], "error": error}
    if OBJECT in known:
        known[OBJECT] = {name: value for name, value in known[OBJECT].items() if value is not None}
    if "embedding" in known:
        known["embedding"] = rounded(known["embedding"])
    for part in known.get("segments", ()):
        if part["answers"] is None:
            del part["answers"]
    return {name: value for name, value in known.items() if name not in ("label", "score", "yes")}


class ParquetWriter:
    """A file of records, whose row groups are written as they fill: memory holds one of them.

    Args:
        path: of the file aside that a caller renames when all is written.
        embeddings: whether records may have one; their length is that of the first.
    """

    def __init__(
        self, path: Path, *, made_with: Mapping[str, Any] | None, windows: bool, embeddings: bool
    ) -> None:
        self._path, self._made_with = path, made_with
        self._windows, self._embeddings = windows, embeddings
        self._rows: list[dict[str, Any]] = []
        self._batches: list[Any] = []
        self._file: Any = None
        self._schema: Any = None

    def write(self, record: Mapping[str, Any]) -> None:
        """Add a record."""
        self._rows.append(to_row(record))
        if len(self._rows) >= AT_ONCE:
            self._convert()
            if sum(b.num_rows for b in self._batches) >= ROWS or sum(b.nbytes for b in self._batches) >= SIZE:
                self._flush()

    def _convert(self) -> None:
        import pyarrow as pa

        if self._schema is None:
            length = next((len(row["embedding"]) for row in self._rows if "embedding" in row), 0)
            self._schema = schema(
                windows=self._windows,
                embedding=length if self._embeddings else None,
                made_with=self._made_with,
            )
        self._batches.append(pa.RecordBatch.from_pylist(self._rows, self._schema))
        self._rows = []

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._file is None:
            self._file = pq.ParquetWriter(self._path, self._schema, compression="zstd")
        self._file.write_table(pa.Table.from_batches(self._batches, self._schema))
        self._batches = []

    def close(self) -> None:
        """Write what is left and the footer, without which the file is none."""
        self._convert()
        self._flush()
        self._file.close()


def made_with_of(source: str | Path | IO[bytes]) -> dict[str, Any] | None:
    """Read what a file of parquet was made with; None where zsar did not write it.

    Raises:
        UsageError: it is no parquet, or it is damaged.
    """
    require_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(source).metadata or {}
        found = json.loads(metadata[KEY]) if KEY in metadata else None
    except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
        raise _damaged(source) from error
    return found if isinstance(found, dict) else None


def read_parquet(source: str | Path | IO[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the records of a file that zsar wrote; some hundred rows are held at once.

    Raises:
        UsageError: it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Pages are read as they are needed: a row group may hold all of millions of rows
        with pq.ParquetFile(source, buffer_size=2**20, pre_buffer=False) as file:
            for batch in file.iter_batches(AT_ONCE, use_threads=False):
                yield from map(to_record, batch.to_pylist())
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise _damaged(source) from error


def _damaged(source: Any) -> UsageError:
    name = getattr(source, "name", source)
    return UsageError(f"{name} is damaged, or no parquet file of zsar predict; write it again.")
