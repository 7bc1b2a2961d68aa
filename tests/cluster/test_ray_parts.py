"""The list that a cluster's workers read, and the parts that they write. Ray is imported and not started."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from zsar_cli.cli.merge import find_parts
from zsar_cli.cluster.predict import _claim, remove_parts
from zsar_cli.cluster.stages import VIDEO, from_id, to_id
from zsar_cli.errors import UsageError

# Ray takes a second to import, and each worker collects all tests: tests import it as they run
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: pip install 'zsar-cli[ray]'"),
]
MADE = {"model": "tiny", "weights": "1", "top_k": 5}


@pytest.fixture
def files() -> Any:
    from pyarrow.fs import LocalFileSystem

    return LocalFileSystem()


@pytest.mark.parametrize(("count", "pieces"), [(0, 4), (1, 4), (16, 4), (1000, 4), (1000, 1), (50_000, 8)])
def test_every_input_is_in_one_piece_and_there_is_work_for_all(
    count: int, pieces: int, tmp_path: Path, files: Any
) -> None:
    from zsar_cli.cluster.parts import InputList, write_list

    names = [f"{number}\udcff.mp4" for number in range(count)]
    starts, counted = write_list(files, str(tmp_path / "list"), iter(names))
    source = InputList(files, str(tmp_path / "list"), starts, counted, pieces)
    tables = [next(iter(task.read_fn())) for task in source.get_read_tasks(1)]
    assert [from_id(text) for table in tables for text in table[VIDEO].to_pylist()] == names
    assert count < 16 * pieces or len(tables) >= pieces
    assert all(table.num_rows <= 512 for table in tables)


def written(folder: Path, number: int, names: list[str], ending: str = ".parquet") -> str:
    """A part of these videos and its checkpoint, as Ray leaves them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    base = f"part-{'a' * 32}-{number:06}"
    records = [{"video": name, "error": {"kind": "missing", "message": "m"}} for name in names]
    (folder / f"{base}.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    (folder / "_ray" / "checkpoints" / "b").mkdir(parents=True, exist_ok=True)
    ids = pa.table({VIDEO: [to_id(name) for name in names]})
    pq.write_table(ids, folder / "_ray" / "checkpoints" / "b" / f"{base}{ending}")
    return f"{base}.jsonl"


def test_a_part_that_was_not_finished_is_removed_and_the_others_become_those_of_shards(
    tmp_path: Path, files: Any
) -> None:
    from zsar_cli.cluster.parts import key_of, number_parts, settle

    kept = [written(tmp_path, 0, ["a.mp4", "./b.mp4"]), written(tmp_path, 1, ["c.mp4"])]
    torn = written(tmp_path, 2, ["d.mp4"], ".pending.parquet")
    done = settle(files, str(tmp_path), str(tmp_path / "_ray" / "checkpoints"))
    assert done == {key_of(name) for name in ("a.mp4", "b.mp4", "c.mp4")}
    assert not (tmp_path / torn).exists()
    assert all((tmp_path / name).exists() for name in kept)
    for more in range(2):  # the list grew, and the parts are numbered again
        number_parts(files, str(tmp_path), MADE)
        found = find_parts(str(tmp_path))
        assert [part.part for part in found.parts] == [
            f"part-{n:05}-of-{2 + more:05}.jsonl" for n in range(2 + more)
        ]
        assert sum(part.videos for part in found.parts) == 3 + more
        assert list(found.lines()) == []
        assert found.parts[0].made_with == MADE
        written(tmp_path, 3 + more, [f"{more}.mp4"])


def test_a_folder_of_other_settings_or_of_somebody_else_is_refused(tmp_path: Path, files: Any) -> None:
    place = str(tmp_path)
    (tmp_path / "_ray").mkdir()
    _claim(files, place, place, MADE, False)
    written(tmp_path, 0, ["a.mp4"])
    _claim(files, place, place, MADE | {"model": "renamed"}, False)
    with pytest.raises(UsageError, match="--top-k"):
        _claim(files, place, place, MADE | {"top_k": 3}, False)
    _claim(files, place, place, MADE | {"top_k": 3}, True)
    assert [path.name for path in tmp_path.iterdir()] == ["_ray"]
    remove_parts(files, place)
    (tmp_path / "_ray").mkdir()
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UsageError, match="something else"):
        _claim(files, place, place, MADE, True)
    assert (tmp_path / "thesis.txt").exists()
