"""Objects in storage: fetched whole, in ranges, as they are, and with an error of its own for what goes wrong."""

from __future__ import annotations

import json
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
from aiohttp import ConnectionTimeoutError

from tests.storage import TrialStorage, WebHandler, serve
from tests.video_files import write_video
from zsar_cli.errors import UsageError, VideoError
from zsar_cli.video import fetch, storage
from zsar_cli.video.address import beside, is_remote, path_of, public
from zsar_cli.video.container import check_path
from zsar_cli.video.fetch import LIMITS, Fetcher
from zsar_cli.video.pool import Clip, ClipRequest, DecodePool
from zsar_cli.video.states import with_states
from zsar_cli.video.storage_errors import explained

OBJECT = bytes(range(256)) * 40  # 10 kB, in parts of 1 kB


@pytest.fixture(autouse=True)
def trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[TrialStorage]]:
    """A storage of the test's own, small parts, no waiting, and a temporary folder that shows what is left."""
    fsspec.register_implementation("trial", TrialStorage, clobber=True)
    TrialStorage.empty()
    storage._states.clear()
    fetch._answered.clear()
    monkeypatch.setattr(storage, "PART", 1024)
    monkeypatch.setattr("zsar_cli.video.web.PART", 1024)
    monkeypatch.setattr(fetch, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(LIMITS, "max_bytes", LIMITS.max_bytes)
    monkeypatch.setattr(LIMITS, "space", LIMITS.space)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    yield TrialStorage
    assert os.listdir(tmp_path / "tmp") == []


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    server, address = serve()
    yield address
    server.shutdown()
    server.server_close()


@pytest.fixture
def site(web: str) -> str:
    for store in (WebHandler.objects, WebHandler.sent, WebHandler.asked, WebHandler.fail):
        store.clear()
    WebHandler.objects["a.bin"] = OBJECT
    return web


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    write_video(path, 4, size=(32, 32))
    return path.read_bytes()


def fetched(url: str) -> bytes:
    fetcher = Fetcher()
    try:
        with open(fetcher.path(fetcher.start(url)), "rb") as file:
            return file.read()
    finally:
        fetcher.close()


def failure(url: str) -> VideoError:
    with pytest.raises(VideoError) as error:
        fetched(url)
    return error.value


def test_an_object_is_fetched_whole_and_no_byte_of_it_twice(trial) -> None:
    trial.objects["b/a.mp4"] = OBJECT
    assert fetched("trial://b/a.mp4") == OBJECT
    assert trial.bytes_read["b/a.mp4"] == len(OBJECT)


@pytest.mark.parametrize("met", [TimeoutError(), "short", ConnectionResetError(), OSError(5, "error")])
def test_what_may_pass_is_tried_again_and_only_the_part_that_failed_is_read_again(trial, met) -> None:
    trial.objects["b/a.mp4"] = OBJECT
    trial.plans["b/a.mp4"] = [None, met, met]
    assert fetched("trial://b/a.mp4") == OBJECT
    assert trial.bytes_read["b/a.mp4"] <= len(OBJECT) + 2 * 512


@pytest.mark.parametrize(
    ("met", "kind", "reads"),
    [
        (TimeoutError(), "fetch_timeout", fetch.TRIES),
        ("short", "truncated", fetch.TRIES),
        (ConnectionResetError(104, "reset"), "unreachable", fetch.TRIES),
        (PermissionError(13, "no"), "permission", 1),
        (FileNotFoundError(), "not_found", 1),
    ],
)
def test_each_thing_that_goes_wrong_has_a_kind_and_only_some_are_tried_again(trial, met, kind, reads) -> None:
    trial.objects["b/a.mp4"] = OBJECT[:1000]
    trial.plans["b/a.mp4"] = [met] * 100
    assert failure("trial://b/a.mp4").kind == kind
    assert 100 - len(trial.plans["b/a.mp4"]) == reads


def test_a_host_that_is_not_there_is_tried_once_and_one_that_has_answered_again(site, caplog) -> None:
    caplog.set_level(logging.INFO, fetch.logger.name)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/a.mp4", "http://nowhere.invalid/a.mp4"):
        error = failure(url)
        assert (error.kind, "could not be reached" in error.message) == ("unreachable", True)
    assert "(try " not in caplog.text
    late = explained(ConnectionTimeoutError(), site)
    assert (late.kind, "no connection in time" in late.message) == ("unreachable", True)
    tries = []

    def action() -> None:
        tries.append(1)
        raise explained(ConnectionRefusedError(111, "refused"), site)

    for expected in (1, fetch.TRIES):
        tries.clear()
        with pytest.raises(VideoError, match="could not be reached"):
            fetch.patiently(action, f"{site}/ranges/a.bin", lambda _: None)
        assert len(tries) == expected
        fetched(f"{site}/ranges/a.bin")


def test_an_object_that_changes_while_it_is_read_is_read_once_more(trial) -> None:
    trial.objects["b/a.mp4"] = OBJECT

    def change() -> None:
        trial.objects["b/a.mp4"], trial.tags["b/a.mp4"] = OBJECT[::-1], "2"

    trial.plans["b/a.mp4"] = [None, None, change]
    assert fetched("trial://b/a.mp4") == OBJECT[::-1]
    numbers = iter(range(3, 10**6))

    def always() -> None:
        trial.tags["b/a.mp4"] = str(next(numbers))

    trial.plans["b/a.mp4"] = [always] * 1000
    assert failure("trial://b/a.mp4").kind == "changed"


@pytest.mark.parametrize("size", [500, 2000])
def test_an_object_of_another_size_than_its_folder_said_is_asked_for_again(trial, size) -> None:
    trial.objects["b/a.mp4"] = OBJECT[:1000]
    (url,) = storage.videos_below("trial://b/")
    trial.objects["b/a.mp4"], trial.tags["b/a.mp4"] = OBJECT[:size], "2"
    assert fetched(url) == OBJECT[:size]
    assert storage.known_state(url) == storage.State(size, "2")


def test_large_and_empty_objects_are_refused_before_a_byte_is_read(trial) -> None:
    trial.objects |= {"b/large.mp4": OBJECT, "b/empty.mp4": b""}
    LIMITS.max_bytes = 5000
    assert failure("trial://b/large.mp4").kind == "too_large"
    assert failure("trial://b/empty.mp4").kind == "unreadable"
    assert not trial.bytes_read


def test_names_with_odd_letters_are_names(trial) -> None:
    for name in ("a b.mp4", "a#b.mp4", "a?b.mp4", "a%20b.mp4", "a::b.mp4", "ä[1].mp4", "a'\".mp4"):
        trial.objects[f"b/{name}"] = OBJECT
    found = list(storage.videos_below("trial://b/"))
    assert sorted(found) == sorted(f"trial://{name}" for name in trial.objects)
    assert all(fetched(url) == OBJECT for url in found)


def test_a_folder_of_10000_objects_is_listed_in_one_go_and_asks_for_none(trial) -> None:
    trial.objects |= {f"b/{number}.json": b"{}" for number in range(10_000)}
    trial.objects |= dict.fromkeys(
        ("b/x.MP4", "b/d/y.mkv", "b/d/z.webm", "b/.h/z.mp4", "b/__MACOSX/z.mp4"), OBJECT
    )
    trial.objects["c/other.mp4"] = OBJECT
    found = list(storage.videos_below("trial://b/"))
    assert found == ["trial://b/d/y.mkv", "trial://b/d/z.webm", "trial://b/x.MP4"]
    assert fetched(found[0]) == OBJECT
    assert trial.asked["b/d/y.mkv"] == 1  # whether it changed while it was read; not to find out what it is


def test_patterns_and_what_is_a_folder(trial) -> None:
    trial.objects |= dict.fromkeys(("b/x1.mp4", "b/x[1].mp4", "b/d/x2.mp4", "b/x3.txt"), OBJECT)
    assert list(storage.videos_below("trial://b/x*")) == ["trial://b/x1.mp4", "trial://b/x[1].mp4"]
    assert list(storage.videos_below("trial://b/**/x2.*")) == ["trial://b/d/x2.mp4"]
    assert storage.is_pattern("trial://b/x?.mp4")
    assert not storage.is_pattern("trial://b/x[1].mp4")
    assert storage.is_folder("trial://b/d")
    assert not storage.is_folder("trial://b/none")
    with pytest.raises(UsageError, match="no such object"):
        list(storage.videos_below("trial://none/"))


def test_files_on_the_disk_stay_within_their_room(trial, tmp_path: Path) -> None:
    LIMITS.space = 3 * len(OBJECT)
    trial.objects |= {f"b/{number}.mp4": OBJECT for number in range(12)}
    fetcher = Fetcher()
    most = 0
    fetches = [fetcher.start(f"trial://{name}") for name in trial.objects]
    for one in fetches:
        fetcher.path(one)
        held = [path.stat().st_size for path in tmp_path.rglob("zsar-fetch-*/*")]
        most = max(most, sum(held))
        fetcher.done(one)
        assert not os.path.exists(one.path)
    fetcher.close()
    assert 0 < most <= LIMITS.space
    assert fetcher.bytes == sum(trial.bytes_read.values()) == 12 * len(OBJECT)


def test_an_object_larger_than_all_room_comes_alone(trial) -> None:
    LIMITS.space = len(OBJECT) // 2
    trial.objects |= {"b/a.mp4": OBJECT[:100], "b/b.mp4": OBJECT, "b/c.mp4": OBJECT[:100]}
    fetcher = Fetcher()
    for one in [fetcher.start(f"trial://{name}") for name in trial.objects]:
        assert Path(fetcher.path(one)).stat().st_size in (100, len(OBJECT))
        fetcher.done(one)
    fetcher.close()


def test_two_that_ask_for_the_same_share_it_and_what_is_kept_goes_when_room_is_needed(
    trial, tmp_path
) -> None:
    LIMITS.space = len(OBJECT)
    trial.objects |= {"b/a.mp4": OBJECT, "b/b.mp4": OBJECT}
    fetcher = Fetcher()
    first, second = fetcher.start("trial://b/a.mp4"), fetcher.start("trial://b/a.mp4", keep=True)
    assert fetcher.path(first) == fetcher.path(second)
    fetcher.done(first)
    fetcher.done(second)
    again = fetcher.start("trial://b/a.mp4", keep=True)
    assert fetcher.path(again) == fetcher.path(first)
    assert trial.bytes_read["b/a.mp4"] == len(OBJECT)
    fetcher.done(again)
    other = fetcher.start("trial://b/b.mp4")
    assert os.listdir(os.path.dirname(fetcher.path(other))) == [os.path.basename(other.path)]
    fetcher.close()


def test_what_a_killed_run_left_is_removed_by_the_next_and_nothing_else(trial, tmp_path: Path) -> None:
    dead = tmp_path / "tmp" / "zsar-fetch-abcd1234"
    foreign = tmp_path / "tmp" / "zsar-fetch-mine"
    for folder in (dead, foreign):
        folder.mkdir()
        (folder / "1.mp4").touch()
    link = tmp_path / "tmp" / "zsar-fetch-abcd1235"
    link.symlink_to(foreign)
    trial.objects["b/a.mp4"] = OBJECT
    running = Fetcher()
    path = running.path(running.start("trial://b/a.mp4"))
    assert fetched("trial://b/a.mp4") == OBJECT
    assert not dead.exists()
    assert (foreign / "1.mp4").exists()
    assert link.is_symlink()
    assert os.path.exists(path)
    running.close()
    link.unlink()
    (foreign / "1.mp4").unlink()
    foreign.rmdir()


def test_closing_does_not_wait_for_a_storage_that_hangs(trial) -> None:
    trial.objects["b/a.mp4"] = OBJECT
    there, leave = threading.Event(), threading.Event()

    def hang() -> None:
        there.set()
        leave.wait(20)

    trial.plans["b/a.mp4"] = [hang]
    with DecodePool(0) as pool:
        one = pool.work.fetcher.start("trial://b/a.mp4")
        assert there.wait(20)
    with pytest.raises(VideoError):
        pool.work.fetcher.path(one)
    leave.set()


# --- decoding -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_decoders_get_files_and_their_errors_are_those_of_the_object(trial, clip, workers) -> None:
    trial.objects |= {"b/a.mp4": clip, "b/bad.mp4": b"no video" * 100, "b/b": clip}
    names = ["b/a.mp4", "b/none.mp4", "b/bad.mp4", "b/b", "b/a.mp4"]
    with DecodePool(workers) as pool:
        found = [result for _, result in pool.imap([ClipRequest(f"trial://{name}") for name in names])]
        fetcher = pool.work.fetcher
        with fetcher._changed:  # all are removed as soon as they are decoded, before the pool ends
            assert fetcher._changed.wait_for(lambda: not fetcher._fetches, 20)
    assert [type(result) for result in found] == [Clip, VideoError, VideoError, Clip, Clip]
    assert (found[1].kind, found[2].kind) == ("not_found", "no_video")
    assert trial.bytes_read["b/bad.mp4"] == 800  # read once: a broken video is not tried again


def test_what_a_consumer_leaves_is_removed(trial, clip) -> None:
    trial.objects |= {f"b/{number}.mp4": clip for number in range(8)}
    with DecodePool(1) as pool:
        results = pool.imap([ClipRequest(f"trial://{name}") for name in trial.objects])
        next(results)
        results.close()


# --- the web ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["ranges", "plain", "chunked", "moved", "signed"])
def test_the_web_with_and_without_ranges_is_read_once(site: str, way: str) -> None:
    assert fetched(f"{site}/{way}/a.bin") == OBJECT
    assert sum(WebHandler.sent.values()) == len(OBJECT)
    assert ("HEAD", f"/{way}/a.bin") not in WebHandler.asked


def test_an_answer_of_the_web_that_ends_too_early_is_no_video(site: str) -> None:
    assert failure(f"{site}/cut/a.bin").kind == "truncated"


@pytest.mark.parametrize(
    ("statuses", "kind"),
    [
        ([429, 503, 500], None),
        ([403], "permission"),
        ([401], "permission"),
        ([404], "not_found"),
        ([410], "not_found"),
        ([400], "refused"),
        ([503] * fetch.TRIES, "unreachable"),
    ],
)
def test_statuses_of_the_web(site: str, statuses: list[int], kind: str | None) -> None:
    WebHandler.fail += statuses
    if kind is None:
        assert fetched(f"{site}/ranges/a.bin") == OBJECT
    else:
        assert failure(f"{site}/ranges/a.bin?Signature=secret").kind == kind
        assert WebHandler.fail == []


class Answered(Exception):
    """What drivers raise: with the status itself, or with the answer that has it."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__("https://h/a.mp4?sig=secret")
        self.__dict__.update(attributes)


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"status": 503}, "unreachable"),
        ({"code": "404"}, "not_found"),
        ({"response": SimpleNamespace(status_code=401)}, "permission"),
        ({"response": {"ResponseMetadata": {"HTTPStatusCode": 429}}}, "unreachable"),
        ({"response": {"ResponseMetadata": {"HTTPStatusCode": 403}}}, "permission"),
        ({"code": "NoSuchThing"}, "unreachable"),
    ],
)
def test_statuses_of_drivers(attributes: dict[str, Any], kind: str) -> None:
    hidden = FileNotFoundError()  # as fsspec's HTTP driver says of every failure
    hidden.__cause__ = Answered(**attributes)
    assert explained(hidden, "x").kind == ("not_found" if attributes.get("code") == "NoSuchThing" else kind)
    found = explained(Answered(**attributes), "x")
    assert found.kind == kind
    assert "secret" not in found.message


def test_sizes_of_the_web_are_checked_whether_they_are_said_or_not(site: str) -> None:
    WebHandler.objects["empty.bin"] = b""
    LIMITS.max_bytes = 5000
    for way in ("ranges", "plain", "chunked"):
        assert failure(f"{site}/{way}/a.bin").kind == "too_large"
        assert failure(f"{site}/{way}/empty.bin").kind == "unreadable"


def test_a_server_that_is_not_there(site: str) -> None:
    error = failure("http://127.0.0.1:9/a.mp4?X-Amz-Signature=secret")
    assert error.kind == "unreachable"
    assert "secret" not in error.message


def test_an_index_page_is_a_folder(site: str) -> None:
    WebHandler.objects[""] = (
        b'<a href="a%20b.mp4">a</a> <a href="c.txt">c</a> <a href="http://other.org/x.mp4">x</a>'
    )
    assert list(storage.videos_below(f"{site}/plain/")) == [f"{site}/plain/a%20b.mp4"]


# --- names --------------------------------------------------------------------------------------------------------


def test_what_gives_access_is_no_part_of_a_name() -> None:
    for given, name in {
        "https://h/a.mp4?X-Amz-Date=1&X-Amz-Signature=2": "https://h/a.mp4",
        "https://h/a.mp4?id=7&X-Goog-Signature=2&Expires=1": "https://h/a.mp4?id=7",
        "https://h/a.mp4?sv=1&st=2&se=3&sig=4": "https://h/a.mp4",
        "https://h/watch?v=1&st=20": "https://h/watch?v=1&st=20",
        "https://me:word@h/a.mp4": "https://me@h/a.mp4",
        "sftp://me:word@h/a@b.mp4": "sftp://me@h/a@b.mp4",
        "https://me:p@ss:w@rd@h/a@b.mp4": "https://me@h/a@b.mp4",
        "s3://b/a?sig=1.mp4": "s3://b/a?sig=1.mp4",
        "clips/a.mp4?sig=1": "clips/a.mp4?sig=1",
    }.items():
        assert public(given) == name


@pytest.mark.parametrize("url", ["http://[x/a.mp4?b", "https://\u2100/a.mp4#b", "http://u:p@[/a%2emp4"])
def test_a_host_that_is_none_breaks_no_list(url: str) -> None:
    assert path_of(url) == "/a.mp4"
    assert beside("http://host/lists/all.txt", r"\\[x\a.mp4") == r"\\[x\a.mp4"


def test_secrets_are_in_no_log(site: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "zsar_cli")
    WebHandler.fail += [503] * 2
    fetched(f"{site}/ranges/a.bin?X-Amz-Signature=secret")
    assert "503" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("address", "part"),
    [
        ("htps://example.org/a.mp4", "did you mean https://"),
        ("rtsps://example.org/a", "never from a list"),
        ("s3://bucket/a.mp4", "not read here"),
    ],
)
def test_a_url_where_none_is_read_says_so(address: str, part: str) -> None:
    with pytest.raises(VideoError, match=part):
        check_path(address)


def test_which_texts_are_addresses() -> None:
    assert all(
        map(is_remote, ("s3://b/k", "HTTPS://h/a", "trial://b/a", "memory://a", "hf://datasets/u/r/a.mp4"))
    )
    assert not any(
        map(is_remote, ("a.mp4", "file:///a.mp4", "C://a", "s3:/b", "htps://a", "zip://a::s3://b", 3, None))
    )


def test_relative_paths_start_from_the_list() -> None:
    assert beside("s3://b/lists/l.txt", "c/a b.mp4") == "s3://b/lists/c/a b.mp4"
    assert beside("s3://b/lists/l.txt", "../../../c/a.mp4") == "s3://b/c/a.mp4"
    assert beside("https://h/d/l.txt?sig=1", "a.mp4") == "https://h/d/a.mp4"
    assert beside("memory://d/l.txt", "../a.mp4") == "memory:///a.mp4"


def test_a_driver_that_is_missing_says_what_to_install() -> None:
    for url, package in {"s3://b/a.mp4": r"zsar-cli\[s3\]", "gs://b/a.mp4": r"zsar-cli\[gs\]"}.items():
        scheme = url.partition(":")[0]
        try:
            fsspec.get_filesystem_class(scheme)
        except ImportError:
            with pytest.raises(VideoError, match=f"pip install '{package}'"):
                storage.file_system(url)


def test_options_of_drivers_come_from_a_file_and_its_values_are_never_said(
    tmp_path: Path, monkeypatch
) -> None:
    import fsspec.config

    monkeypatch.setattr(fsspec.config, "conf", {})
    path = tmp_path / "options.json"
    path.write_text(json.dumps({"trial": {"key": "secret"}}))
    storage.use_options(path)
    assert fsspec.config.conf == {"trial": {"key": "secret"}}
    assert storage.file_system("trial://b/a")[0].storage_options == {"key": "secret"}
    for text in ('{"trial": "secret"}', '["secret"]', "{secret"):
        path.write_text(text)
        with pytest.raises(UsageError) as error:
            storage.use_options(path)
        assert "secret" not in str(error.value)


# --- states -------------------------------------------------------------------------------------------------------


def test_states_are_asked_for_together_and_items_keep_their_order(trial, monkeypatch) -> None:
    trial.objects |= {f"b/{number}.mp4": OBJECT for number in range(8)}
    together = threading.Barrier(4)  # four at the same time pass it
    info = TrialStorage.info

    def wait(self, path: str, **options):
        together.wait(20)
        return info(self, path, **options)

    monkeypatch.setattr(TrialStorage, "info", wait)
    urls = [f"trial://{name}" for name in trial.objects]
    assert list(with_states(urls, str)) == urls
    assert all(storage.known_state(url) is not None for url in urls)


def test_nothing_is_read_ahead_of_what_is_no_address_and_errors_come_through(trial) -> None:
    read = []

    def items() -> Iterator[str]:
        for item in ("a.mp4", "trial://b/none.mp4", "b.mp4", "c.mp4"):
            read.append(item)
            yield item
        raise UsageError("the list ends")

    found = with_states(items(), str)
    assert [next(found), next(found), next(found)] == ["a.mp4", "trial://b/none.mp4", "b.mp4"]
    assert "c.mp4" not in read
    assert next(found) == "c.mp4"
    with pytest.raises(UsageError, match="the list ends"):
        next(found)
