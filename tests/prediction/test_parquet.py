"""Records in parquet, and read back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from zsar_cli.errors import UsageError
from zsar_cli.prediction import parquet
from zsar_cli.prediction.parquet import ParquetWriter, made_with_of, read_parquet
from zsar_cli.prediction.records import Failure, LabelScore, Prediction
from zsar_cli.prediction.timeline import Segment, Timeline

pytest.importorskip("pyarrow", reason="pyarrow is not installed: zsar-cli[parquet]")
FOUND = [LabelScore("waving", 0.75, 0.5), LabelScore("中 'x", 0.25, 0.125)]
MADE = {"zsar": "1", "model": "tiny", "frames": 8}


def write(path: Path, *results, windows: bool = False) -> None:
    file = ParquetWriter(path, made_with=MADE, windows=windows, embeddings=not windows)
    for result in results:
        file.write(result.to_record())
    file.close()


def read(path: Path) -> tuple[object, list[dict]]:
    return made_with_of(path), list(read_parquet(path))


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(16).astype(np.float32)


def test_records_come_back_as_they_were(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(parquet, "AT_ONCE", 2)
    monkeypatch.setattr(parquet, "ROWS", 4)
    results = [Failure("b.mp4", "not_found", "no such file")]
    for number in range(8):
        more = (
            {"answer": "waving", "answers": ["waving"], "warning": "é"}
            if number % 2
            else {"assumed_fps": 25.0}
        )
        results.append(Prediction(f"{number}.mp4", FOUND, 0.5, 1.25, 8, embedding=vector(number), **more))
    write(tmp_path / "a.parquet", *results)
    assert list(read_parquet(tmp_path / "a.parquet")) == [result.to_record() for result in results]
    assert made_with_of(tmp_path / "a.parquet") == MADE
    import pyarrow.parquet as pq

    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 3  # written as they fill
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column("label").to_pylist()[:2] == [None, "waving"]
    assert str(table.schema.field("embedding").type).startswith("fixed_size_list<element: float>[16]")
    assert np.array_equal(table.column("embedding")[1].values.to_numpy(), vector(0))  # to the last bit


def test_the_state_of_an_object_comes_back(tmp_path: Path) -> None:
    record = Prediction("s3://b/a.mp4", FOUND, 0.5, 1.0, 8).to_record()
    for number, state in enumerate(({"size": 3, "etag": "x"}, {"size": 3})):
        file = ParquetWriter(tmp_path / f"{number}", made_with=MADE, windows=False, embeddings=False)
        file.write(record | {"object": state})
        file.close()
        assert list(read_parquet(tmp_path / f"{number}")) == [record | {"object": state}]


def test_segments_come_back_as_they_were(tmp_path: Path) -> None:
    parts = [Segment(0.0, 2.0, "waving", FOUND, 0.5), Segment(2.0, 3.0, "none of these", FOUND, 0.75)]
    several = [Segment(0.0, 3.0, "waving", FOUND, 0.5, ["waving", "中 'x"])]
    results = [
        Timeline("c.mp4", parts, 3.0, 8),
        Failure("b.mp4", "x", "y"),
        Timeline("d.mp4", several, 3.0, 8),
    ]
    write(tmp_path / "a.parquet", *results, windows=True)
    assert list(read_parquet(tmp_path / "a.parquet")) == [result.to_record() for result in results]


def test_names_that_are_no_text_are_escaped_and_nothing_at_all_is_a_table_too(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", Failure("a\udc80.mp4", "x", "y\udc80"))
    assert [record["video"] for record in read_parquet(tmp_path / "a.parquet")] == ["a\\udc80.mp4"]
    write(tmp_path / "b.parquet")
    assert list(read_parquet(tmp_path / "b.parquet")) == []


def test_what_is_no_parquet_of_ours_is_told(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"video": ["a.mp4"]}), tmp_path / "list.parquet")
    assert made_with_of(tmp_path / "list.parquet") is None
    write(tmp_path / "a.parquet", Prediction("a.mp4", FOUND, 0.5, 1.0, 8))
    whole = (tmp_path / "a.parquet").read_bytes()
    for damaged in (
        b"",
        b"PAR1",
        whole[:-9],
        whole[:40] + bytes(60) + whole[100:],
        json.dumps(MADE).encode(),
    ):
        (tmp_path / "a.parquet").write_bytes(damaged)
        with pytest.raises(UsageError, match="is damaged, or no parquet file of zsar predict"):
            read(tmp_path / "a.parquet")
