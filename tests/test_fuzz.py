"""A short run of the fuzzers (``make fuzz`` is the long one), and that they notice what they are there for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import files, models, videos
from zsar_cli.video.pool import Clip, ClipRequest, DecodePool


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSAR_CACHE_DIR", str(tmp_path / "cache"))


def test_damaged_files_are_read_or_refused_in_a_line(tmp_path: Path) -> None:
    found = files.fuzz_files(tmp_path, 10 * len(files.targets()), seed=1)
    assert not found.defects, "\n".join(found.defects)
    assert found.cases == 10 * len(files.targets())
    assert set(found.outcomes) == {"read", "refused"}


@pytest.mark.filterwarnings("ignore")  # of PyTorch, about tensors that are new or old
def test_what_was_made_to_do_harm_is_read_or_refused_in_a_line(tmp_path: Path) -> None:
    found = models.fuzz_models(tmp_path, 90, seed=1)
    assert not found.defects, "\n".join(found.defects)
    assert set(found.outcomes) == {"read", "refused"}


def test_damaged_videos_have_their_records(tmp_path: Path, tiny_clip_dir: Path) -> None:
    found = videos.fuzz_videos(tiny_clip_dir, tmp_path, 120, seed=1)
    assert not found.defects, "\n".join(found.defects)
    assert found.cases == 120
    assert {"answered", "unreadable"} <= set(found.outcomes)


def test_odd_videos_have_the_record_they_should(tmp_path: Path) -> None:
    odd = videos.make_oddities(tmp_path)
    with DecodePool(2, timeout=30) as pool:
        results = [found for _, found in pool.imap(ClipRequest(path) for path in odd)]
    found = {
        path: None if isinstance(result, Clip) else result.kind
        for path, result in zip(odd, results, strict=True)
    }
    assert found == odd


def test_the_fuzzer_notices(tmp_path: Path) -> None:
    """Each way of going wrong is told from every other; without this, no defect could mean no look."""

    def misbehave(folder: Path) -> str:
        if (folder / "f.txt").read_text(encoding="latin-1") != "sound":
            deeds[folder.parent.name](folder)
        return "sound"

    def hang(folder: Path) -> None:
        while True:
            pass

    def run_payload(folder: Path) -> None:
        (folder.parent / "executed").touch()

    def chatter(folder: Path) -> None:
        from zsar_cli.errors import UsageError

        raise UsageError("two\nlines")

    deeds = {"hung": hang, "raised": lambda folder: [][1], "refused": chatter, "read": run_payload}
    target = files.Target(
        "t", lambda folder: (folder / "f.txt").write_text("sound") and None, misbehave, ("f.txt",)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "SLOW", 1)
        patch.setattr(files, "targets", lambda: [target])
        for outcome in deeds:
            found = files.fuzz_files(tmp_path / outcome, 1, seed=2)
            assert set(found.outcomes) == {outcome}
            assert len(found.defects) == 1
