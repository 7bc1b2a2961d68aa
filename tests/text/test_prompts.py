"""Templates, labels, embeddings, their file and their cache; and files that are written whole or not at all."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from zsar_cli.cache_files import lock
from zsar_cli.errors import UsageError
from zsar_cli.files import atomic_write, read_text
from zsar_cli.text.cache import TextCache, _key
from zsar_cli.text.embeddings import PromptEmbeddings, embed_prompts
from zsar_cli.text.labels import Labels, load_labels
from zsar_cli.text.templates import Templates, builtin_templates, fill, load_templates, phrase_bank

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
as_root = pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(UsageError) as caught:
        call(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


def write(tmp_path: Path, name: str, content: str | bytes) -> str:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


# --- templates


def test_shipped_templates() -> None:
    own, published = ["kinetics", "plain", "ssv2", "video"], {"clip28": 28, "clip48": 48, "actionclip16": 16}
    assert builtin_templates() == sorted([*own, *published, "about", "person", "photo", "videoprism"])
    for name, count in published.items():
        assert len(load_templates(name).positive) == count
    for name in builtin_templates():
        templates = load_templates(name)
        assert templates.name == name
        every = templates.positive + templates.negative
        assert len(set(every)) == len(every)
        assert len(templates.negative) >= 3, "non-class is said in several ways"
    assert load_templates("plain").positive == ("{}",)
    assert load_templates("default") == load_templates("video")
    assert len({load_templates(name).hash for name in builtin_templates()}) == len(builtin_templates())


def test_own_templates(tmp_path: Path) -> None:
    path = write(tmp_path, "t.yaml", "name: mine\npositive:\n- a {} b\n- '{}'\nnegative: ['no {}']\n")
    templates = load_templates(path)
    assert templates == Templates("mine", ("a {} b", "{}"), ("no {}",))
    assert load_templates(
        write(tmp_path, "u.yaml", "name: other\npositive: ['a {} b', '{}']\nnegative: ['no {}']")
    )
    assert templates.hash == Templates("renamed", templates.positive, templates.negative).hash
    assert templates.hash != Templates("mine", templates.negative, templates.positive).hash


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        ("name: a\npositive: ['{}']\nnegative: ['{}']\nextra: 1\n", 4, "unknown field 'extra'"),
        ("name: a\npositive:\n  - '{}'\n  - no place\nnegative: ['{}']", 4, "exactly one {}"),
        (
            "name: a\npositive: ['{} and {}']\nnegative: ['{}']",
            2,
            "exactly one {} for the label, not '{} and {}'",
        ),
        ("name: a\npositive: ['{label}']\nnegative: ['{}']", 2, "not '{label}'"),
        ("name: a\npositive:\n- {}\nnegative: ['{}']", 3, "quotes"),
        ("name: a\npositive:\n- {} here\nnegative: ['{}']", 3, "quotes"),
        ("name: a\npositive: []\nnegative: ['{}']", 2, "1 or more entries"),
        ("name: a\npositive: '{}'\nnegative: ['{}']", 2, "must be a list"),
        ("name: a\npositive:\nnegative: ['{}']", 2, "must be a list"),
        ("name: a\nname: b\npositive: ['{}']\nnegative: ['{}']", 2, "duplicate of the key in line 1"),
        ("name: a\npositive: ['{}']\n", 1, "negative is missing"),
        ("name: [a]\npositive: ['{}']\nnegative: ['{}']", 1, "name must be a string"),
        ("? [a]\n: b\n", 1, "a key must be a string"),
    ],
)
def test_wrong_templates_name_file_and_line(content: str, line: int, what: str, tmp_path: Path) -> None:
    text = refusal(load_templates, write(tmp_path, "wrong.yaml", content))
    assert f"wrong.yaml, line {line}:" in text
    assert what in text


def test_templates_that_are_none(tmp_path: Path) -> None:
    assert "did you mean kinetics" in refusal(load_templates, "kinetic")
    assert "video" in refusal(load_templates, tmp_path / "missing.yaml")
    for content in (
        "",
        "# nothing",
        "[1]",
        "text",
        b"\xff\xfe",
        b"\0",
        "a: b: c",
        "[" * 5000,
        "\t\t- x",
        "--- a\n--- b",
    ):
        assert "x.yaml" in refusal(load_templates, write(tmp_path, "x.yaml", content))
    refusal(load_templates, tmp_path)
    refusal(load_templates, "x" * 5000)
    refusal(load_templates, "a\0b")


def test_yaml_runs_nothing(tmp_path: Path) -> None:
    content = f"!!python/object/apply:os.mkdir ['{tmp_path}/made']"
    refusal(load_templates, write(tmp_path, "x.yaml", content))
    refusal(
        load_templates, write(tmp_path, "x.yaml", f"name: {content}\npositive: ['{{}}']\nnegative: ['{{}}']")
    )
    assert not (tmp_path / "made").exists()


# --- labels


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.txt", "# the labels\n\nriding a horse\n  making   tea \n#ff0000\nno\n"),
        ("l.txt", b"\xef\xbb\xbfriding a horse\r\nmaking tea\r\nno"),
        ("l", "riding a horse\rmaking tea\rno"),
        ("l.csv", "id,name\n0,riding a horse\n1,making tea\n2,no\n"),
        ("l.csv", b"\xef\xbb\xbfid,name\r\n7,riding a horse\r\n5,making tea\r\n\r\n2,no\r\n"),
        ("l.csv", '0,riding a horse\n1,"making tea"\n2,no'),
        ("l.csv", "riding a horse\nmaking tea\nno"),
        ("l.csv", "name,split,id\nriding a horse,train,0\nmaking tea,test,1\nno,test,2"),
        ("l.yaml", "- riding a horse\n- making tea\n- no\n"),
        ("l.yml", "riding a horse:\nmaking tea:\nno:\n"),
        ("l.json", '["riding a horse", "making tea", "no"]'),
        ("l.json", '{"0": "riding a horse", "1": "making tea", "2": "no"}'),
    ],
)
def test_label_files(name: str, content: str | bytes, tmp_path: Path) -> None:
    labels = load_labels(write(tmp_path, name, content))
    assert labels.names == ("riding a horse", "making tea", "no")
    assert labels.phrases == (("riding a horse",), ("making tea",), ("no",))


def test_label_order_is_that_of_the_rows(tmp_path: Path) -> None:
    assert load_labels(write(tmp_path, "l.csv", "id,name\n5,b\n1,a\n")).names == ("b", "a")


def test_commas_belong_in_quotes(tmp_path: Path) -> None:
    assert load_labels(write(tmp_path, "l.csv", 'id,name\n0,"run, then jump"\n')).names == ("run, then jump",)
    assert "line 3" in refusal(load_labels, write(tmp_path, "l.csv", "id,name\n0,run\n1,run, then jump\n"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.yaml", "on: switching something on\n1.0: [first,  second one]\nbare:\nempty: []\n"),
        (
            "l.json",
            '{"on": "switching something on", "1.0": ["first", "second one"], "bare": null, "empty": []}',
        ),
    ],
)
def test_descriptions(name: str, content: str, tmp_path: Path) -> None:
    labels = load_labels(write(tmp_path, name, content))
    assert labels.names == ("on", "1.0", "bare", "empty"), "as they are written, whatever YAML thinks of them"
    assert labels.phrases == (("switching something on",), ("first", "second one"), ("bare",), ("empty",))


def test_numbered_descriptions(tmp_path: Path) -> None:
    content = '{"0": "Abseiling: This video shows a descent: on a rope.", "1": "Yoga"}'
    labels = load_labels(write(tmp_path, "l.json", content))
    assert labels.names == ("Abseiling", "Yoga")
    assert labels.phrases == (("This video shows a descent: on a rope.",), ("Yoga",))


def test_built_in_lists_and_extras() -> None:
    assert len(load_labels("kinetics400")) == 400
    assert load_labels("UCF-101", ["one more"]).names[-1] == "one more"
    assert load_labels(None, ["a {} b", "café 茶"]).names == ("a {} b", "café 茶")


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("l.txt", "", "no labels"),
        ("l.txt", "# only\n\n", "no labels"),
        ("l.csv", "id,name\n", "no labels"),
        ("l.yaml", "", "no labels"),
        ("l.json", "[]", "no labels"),
        ("l.json", "null", "no labels"),
        ("l.txt", "run\njump\nrun", "'run' occurs twice"),
        ("l.txt", "Run\nrun", "line 2"),
        ("l.yaml", "run: a\nrun: b", "line 2"),
        ("l.json", '{"run": "a", "run": "b"}', "'run' occurs twice"),
        ("l.json", "{", "line 1"),
        ("l.json", '{"run": {"a": "b"}}', "strings"),
        ("l.json", '"run"', "neither a list"),
        ("l.json", '["run", ["jump"]]', "strings"),
        ("l.json", '["run", ""]', "empty"),
        ("l.json", '["run", "\\ud800"]', "cannot be printed"),
        ("l.json", '["run", "a\\u0000b"]', "cannot be printed"),
        ("l.json", "[" * 100_000, "not JSON"),
        ("l.yaml", "a: [x, x]\nb: {c: d}", "strings"),
        ("l.yaml", f"a: &x [1, 2]\nb: &y [{'*x, ' * 400}]\nc: [{'*y, ' * 400}]", "anchor"),
        ("l.csv", "run,fast\nwalk,slow", "id,name"),
        ("l.csv", 'id,name\n0,"run', "not CSV"),
        ("l.txt", b"caf\xe9", "not UTF-8"),
        ("l.txt", "run".encode("utf-16")[:-1], "UTF-16"),
        ("l.txt", b"run\0jump", "not a text file"),
        ("l.txt", b"a" * 16_000_001, "16 MB"),
        ("l.yaml", "a" * 2_000_001, "JSON"),
    ],
)
def test_wrong_labels(name: str, content: str | bytes, what: str, tmp_path: Path) -> None:
    text = refusal(load_labels, write(tmp_path, name, content))
    assert what in text
    assert name in text


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    assert "did you mean kinetics400" in refusal(load_labels, "kinetics40")
    assert "does not exist" in refusal(load_labels, str(tmp_path / "missing.txt"))
    assert "directory" in refusal(load_labels, str(tmp_path))
    assert "--label" in refusal(load_labels, None)
    assert "empty" in refusal(load_labels, None, ["run", "  "])
    assert "twice" in refusal(load_labels, "ucf101", ["archery"])
    refusal(load_labels, "x" * 5000)
    refusal(load_labels, "a\0b")
    refusal(load_labels, "")


@as_root
def test_label_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = write(tmp_path, "l.txt", "run")
    os.chmod(path, 0)
    assert "Permission" in refusal(load_labels, path)


SNIPPETS = st.sampled_from(
    [
        *"[]{}'\",#?|>%\\\t\n",
        *["name", "positive", "negative", "run", "1", "null", "&a", "*a", "!!", "<<", "---", "..."],
        ": ",
        "- ",
        "{}",
        "\r\n",
        "\ufeff",
    ]
)
TEXTS = st.one_of(st.text(max_size=200), st.lists(SNIPPETS, max_size=40).map("".join))


@FUZZ
@given(TEXTS)
def test_any_text_is_templates_or_an_error(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, "t.yaml", text.encode("utf-8", "surrogatepass"))
    try:
        templates = load_templates(path)
    except UsageError:
        return
    assert all(template.count("{}") == 1 for template in templates.positive + templates.negative)


@FUZZ
@given(TEXTS, st.sampled_from(["txt", "csv", "yaml", "json"]))
def test_any_text_is_labels_or_an_error(tmp_path: Path, text: str, form: str) -> None:
    try:
        labels = load_labels(write(tmp_path, f"l.{form}", text.encode("utf-8", "surrogatepass")))
    except UsageError:
        return
    assert len(labels.names) == len(labels.phrases) > 0
    assert all(phrase.strip() == phrase != "" for phrases in labels.phrases for phrase in phrases)
    assert len({name.casefold() for name in labels.names}) == len(labels)


@FUZZ
@given(st.binary(max_size=200), st.sampled_from(["txt", "csv", "yaml", "json"]))
def test_any_bytes_are_labels_or_an_error(tmp_path: Path, content: bytes, form: str) -> None:
    with suppress(UsageError):
        load_labels(write(tmp_path, f"l.{form}", content))


@FUZZ
@given(
    st.dictionaries(
        st.text(min_size=1), st.one_of(st.none(), st.text(), st.lists(st.text(), max_size=3)), max_size=6
    )
)
def test_any_json_map_is_labels_or_an_error(tmp_path: Path, content: dict) -> None:
    try:
        labels = load_labels(write(tmp_path, "l.json", json.dumps(content)))
    except UsageError:
        return
    assert len(labels) == len(content)


# --- the phrase bank


def test_phrase_bank() -> None:
    bank = phrase_bank()
    assert 140 <= len(bank) <= 180
    assert len({phrase.casefold() for phrase in bank}) == len(bank)
    assert all(phrase == phrase.strip() and len(phrase.split()) <= 10 for phrase in bank)
    assert "an empty room" in bank


# --- embeddings


class CountingEncoder:
    """Texts to fixed random directions; remembers what it was asked."""

    def __init__(self, width: int = 16) -> None:
        self.width = width
        self.asked: list[str] = []

    def __call__(self, texts: list[str]) -> torch.Tensor:
        self.asked += texts
        seeds = [sum(ord(letter) * 31**place for place, letter in enumerate(text)) % 2**31 for text in texts]
        rows = [torch.randn(self.width, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return F.normalize(torch.stack(rows), dim=-1)


TEMPLATES = Templates("t", ("{}", "a video of {}"), ("no {}", "not {}", "never {}"))
LABELS = Labels(("run", "tea"), (("run",), ("making tea", "a hot drink")))


def test_embedding_is_the_normalised_mean_of_templates_and_phrases() -> None:
    encode = CountingEncoder()
    found = embed_prompts(encode, LABELS, TEMPLATES, negatives=True, cache=None, model_id="m")
    one = encode(["run", "a video of run"]).mean(dim=0)
    two = encode(["making tea", "a video of making tea", "a hot drink", "a video of a hot drink"]).mean(dim=0)
    torch.testing.assert_close(found.positive, F.normalize(torch.stack([one, two]), dim=-1))
    no = encode(["no run", "not run", "never run"]).mean(dim=0)
    torch.testing.assert_close(found.negative[0], F.normalize(no, dim=-1))
    assert found.positive.dtype == torch.float32
    assert (found.labels, found.model, found.templates) == (["run", "tea"], "m", "t")
    without = embed_prompts(encode, LABELS, TEMPLATES, negatives=False, cache=None)
    assert without.negative is None
    torch.testing.assert_close(without.positive, found.positive)


def test_negatives_that_nobody_wants_are_not_computed() -> None:
    encode = CountingEncoder()
    embed_prompts(encode, LABELS, TEMPLATES, negatives=False, cache=None)
    phrases = ("run", "making tea", "a hot drink")
    assert encode.asked == [text for phrase in phrases for text in (phrase, f"a video of {phrase}")]


def test_labels_are_put_in_and_not_formatted() -> None:
    encode = CountingEncoder()
    label = "{0.__class__} {} %s \\1"
    labels = Labels((label,), ((label,),))
    embed_prompts(encode, labels, Templates("t", ("a {} {b} {0}",), ("{}",)), negatives=False, cache=None)
    assert encode.asked == [f"a {label} {{b}} {{0}}"]


# --- the cache


def test_second_run_encodes_nothing_and_gives_the_same_bits(tmp_path: Path) -> None:
    encode = CountingEncoder()
    first = embed_prompts(encode, LABELS, TEMPLATES, negatives=True, cache=TextCache(tmp_path), model_id="m")
    encode.asked.clear()
    second = embed_prompts(encode, LABELS, TEMPLATES, negatives=True, cache=TextCache(tmp_path), model_id="m")
    assert not encode.asked
    assert torch.equal(first.positive, second.positive)
    assert torch.equal(first.negative, second.negative)


def test_only_what_is_new_is_encoded(tmp_path: Path) -> None:
    encode = CountingEncoder()
    embed_prompts(encode, LABELS, TEMPLATES, negatives=False, cache=TextCache(tmp_path), model_id="m")
    encode.asked.clear()
    more = Labels((*LABELS.names, "jump"), (*LABELS.phrases, ("jump",)))
    embed_prompts(encode, more, TEMPLATES, negatives=False, cache=TextCache(tmp_path), model_id="m")
    assert encode.asked == ["jump", "a video of jump"]
    encode.asked.clear()
    embed_prompts(
        encode, LABELS, TEMPLATES, negatives=False, cache=TextCache(tmp_path), model_id="other model/é"
    )
    assert len(encode.asked) == 6, "another model shares nothing"


def test_a_damaged_cache_is_a_miss(tmp_path: Path) -> None:
    encode = CountingEncoder()

    def run() -> PromptEmbeddings:
        encode.asked.clear()
        return embed_prompts(
            encode, LABELS, TEMPLATES, negatives=False, cache=TextCache(tmp_path), model_id="m"
        )

    expected = run()
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # a value rots
    assert torch.equal(run().positive, expected.positive)
    assert len(encode.asked) == 1
    lost = whole[: len(whole) // 2]
    for content in (b"", b"not a cache at all" * 100, lost, b"\0" * len(whole), whole[:50] + whole[51:]):
        file.write_bytes(content)
        assert torch.equal(run().positive, expected.positive)
        run()
        assert torch.equal(run().positive, expected.positive)
        assert not encode.asked, "and it works again"


def test_what_is_no_cache_is_set_aside_and_not_deleted(tmp_path: Path, caplog) -> None:
    (tmp_path / "text-m.vectors").write_text("somebody's")
    for _ in range(2):
        TextCache(tmp_path).put("m", {"a": np.ones(4)})
    assert (tmp_path / "text-m.vectors.old").read_text() == "somebody's"
    assert list(TextCache(tmp_path).get("m", ["a"])) == ["a"]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("place", ["a file", "nowhere", "a pipe", "a folder"])
def test_a_link_or_pipe_in_the_place_of_a_text_cache_is_left_alone(
    tmp_path: Path, caplog, place: str
) -> None:
    cache, target = tmp_path / "cache" / "text-m.vectors", tmp_path / "target"
    cache.parent.mkdir()
    TextCache(tmp_path).put("m", {"a": np.ones(4)})
    (tmp_path / "text-m.vectors").rename(tmp_path / "sound")
    if place == "a pipe":
        os.mkfifo(cache)
    elif place == "a folder":
        cache.mkdir()
    else:
        cache.symlink_to(tmp_path / "sound" if place == "a file" else target)
    before = (tmp_path / "sound").read_bytes()
    for _ in range(2):  # every set of labels has its own
        cache = TextCache(tmp_path / "cache")
        assert cache.get("m", ["a"]) == {}
        cache.put("m", {"b": np.zeros(4)})
    assert (tmp_path / "sound").read_bytes() == before
    assert not target.exists()
    assert len(caplog.records) == 1
    assert "ZSAR_CACHE_DIR" in caplog.text


@pytest.mark.parametrize("forged", ["wider", "nan", "endless", "many", "no rows"])
def test_what_is_read_from_a_text_cache_is_bounded_and_checked(tmp_path: Path, tiny_clip_dir, forged) -> None:
    from zsar_cli.model.backbone import load_backbone

    encode = load_backbone(str(tiny_clip_dir)).encode_text
    expected = embed_prompts(encode, LABELS, TEMPLATES, negatives=False)
    texts = [text for phrases in LABELS.phrases for text in fill(TEMPLATES.positive, phrases)]
    width = expected.positive.shape[1] + (forged == "wider")
    values = np.full(width, np.nan if forged == "nan" else 0.5)
    key = encode.__self__.text_key
    if forged in ("wider", "nan"):
        TextCache(tmp_path).put(key, dict.fromkeys(texts, values))
    else:
        TextCache(tmp_path).put(key, {"another": values})
    (file,) = tmp_path.iterdir()
    if forged == "no rows":
        file.write_bytes(file.read_bytes()[:17])
    elif forged != "many":
        with file.open("rb+") as handle:
            handle.truncate(1 << 40)  # takes no room
    else:
        with file.open("ab") as handle:
            handle.write(_key(texts[0]) * 50_000)
    for _ in range(2):
        found = embed_prompts(encode, LABELS, TEMPLATES, negatives=False, cache=TextCache(tmp_path))
        assert torch.equal(found.positive, expected.positive)
    assert file.stat().st_size < 5_000_000


def test_a_text_cache_that_another_process_holds_is_done_without(tmp_path: Path, caplog, monkeypatch) -> None:
    monkeypatch.setattr("zsar_cli.text.cache.WAIT", 0.0)
    TextCache(tmp_path).put("m", {"a": np.ones(4)})
    with (tmp_path / "text-m.vectors").open("rb+") as file:
        assert lock(file.fileno())
        cache = TextCache(tmp_path)
        cache.put("m", {"b": np.ones(4)})
        assert list(cache.get("m", ["a", "b"])) == []  # it is not asked again
        assert list(TextCache(tmp_path).get("m", ["a", "b"])) == ["a"]  # reading needs no lock
    assert "another process holds it" in caplog.text


def test_a_text_cache_that_has_grown_too_long_starts_afresh(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("zsar_cli.text.cache.MOST_ROWS", 2)
    for text in "abcd":
        TextCache(tmp_path).put("m", {text: np.ones(4)})
    assert set(TextCache(tmp_path).get("m", list("abcd"))) == {"d"}


def test_a_name_of_any_model_and_any_length_names_a_file(tmp_path: Path) -> None:
    names = ["\u884c" * 82, "a" * 5000, "a/b", "..", "\udcff", "", "A" * 80]
    for number, name in enumerate(names):
        TextCache(tmp_path).put(name, {"a": np.full(4, number)})
    assert [float(TextCache(tmp_path).get(name, ["a"])["a"][0]) for name in names] == list(range(7))
    assert all(path.parent == tmp_path for path in tmp_path.rglob("*"))


def test_a_cache_that_cannot_be_written_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    encode = CountingEncoder()
    cache = TextCache(tmp_path / "file" / "cache")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            embed_prompts(encode, LABELS, TEMPLATES, negatives=True, cache=cache, model_id="m")
    assert caplog.text.count("ZSAR_CACHE_DIR") == 1


def test_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("ZSAR_CACHE_DIR", raising=False)
    assert TextCache().directory == tmp_path / "xdg" / "zsar"
    monkeypatch.setenv("ZSAR_CACHE_DIR", str(tmp_path / "own"))
    assert TextCache().directory == tmp_path / "own"
    monkeypatch.delenv("ZSAR_CACHE_DIR")
    for ignored in ("", "relative"):  # as the XDG specification says
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert TextCache().directory == Path.home() / ".cache" / "zsar"


def test_a_user_without_a_home_goes_without_a_cache(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def nobody(number: int) -> None:
        raise KeyError(number)

    for name in ("HOME", "ZSAR_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("zsar_cli.text.cache._said", set())
    monkeypatch.setattr("pwd.getpwuid", nobody)  # as in a container that runs under a number without a name
    for _ in range(2):
        embed_prompts(CountingEncoder(), LABELS, TEMPLATES, negatives=False, cache=TextCache(), model_id="m")
    assert caplog.text.count("ZSAR_CACHE_DIR") == 1
    monkeypatch.setenv("ZSAR_CACHE_DIR", "~/cache")
    assert TextCache().directory is None, "no folder of the name ~ is made"


def _write_many(directory: str, start: int) -> None:
    cache = TextCache(directory)
    for i in range(start, start + 40):
        cache.put("m", {f"text {i % 60}": np.full(8, i % 60, dtype=np.float32)})
        for text, vector in cache.get("m", [f"text {n}" for n in range(60)]).items():
            assert (vector == float(text.split()[1])).all()


def test_processes_share_the_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write_many, args=(str(tmp_path), 20 * i)) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(TextCache(tmp_path).get("m", [f"text {n}" for n in range(60)])) == 60


def test_four_hundred_labels_are_not_encoded_a_second_time(tmp_path: Path, tiny_clip_dir: Path) -> None:
    from zsar_cli.model.backbone import load_backbone

    backbone = load_backbone(str(tiny_clip_dir))
    labels, templates = load_labels("kinetics400"), load_templates("kinetics")
    batches, found = [], []
    backbone.clip.transformer.register_forward_hook(lambda *_: batches.append(1))
    for _ in range(2):
        cache = TextCache(tmp_path)
        found.append(embed_prompts(backbone.encode_text, labels, templates, negatives=False, cache=cache))
        batches.append(0)
    assert torch.equal(found[0].positive, found[1].positive)
    first = batches.index(0)
    assert first > 0
    assert batches[first:] == [0, 0], "the second time, no text went through the tower"


def test_a_backbone_brings_its_own_key_and_names_what_it_cuts(
    tmp_path: Path, tiny_clip_dir: Path, caplog
) -> None:
    from zsar_cli.model.backbone import load_backbone

    backbone = load_backbone(str(tiny_clip_dir))
    long = ["very " * 90 + "long", "short"]
    cache, said = TextCache(tmp_path), []
    for names in (long, long, ["quite " * 90 + "long", *long]):
        caplog.clear()
        labels = load_labels(None, names)
        found = embed_prompts(
            backbone.encode_text, labels, TEMPLATES, negatives=False, cache=cache, model_id="same"
        )
        said += [record.getMessage() for record in caplog.records]
    assert len(said) == 3, "once, whether all texts are cached, none, or some"
    assert "very very" in said[0]
    assert said[0] == said[1]
    assert 0 < said[2].index("quite quite") < said[2].index("very very")
    assert found.model_fingerprint == backbone.fingerprint()
    assert [file.name for file in tmp_path.iterdir()] == [f"text-{backbone.text_key}.vectors"]
    half = load_backbone(str(tiny_clip_dir), precision="bf16")
    again = embed_prompts(half.encode_text, labels, TEMPLATES, negatives=False, cache=cache, model_id="same")
    assert not torch.equal(again.positive, found.positive), "one precision's values are not another's"
    again.check_model("same", backbone.fingerprint())


# --- the embeddings file


def embeddings() -> PromptEmbeddings:
    return embed_prompts(
        CountingEncoder(), LABELS, TEMPLATES, negatives=True, cache=None, model_id="ViT-B-16/openai"
    )


def test_file_round_trip(tmp_path: Path) -> None:
    original = embeddings()
    original.model_fingerprint = "abc"
    original.labels = ["run", 'te"a é']
    for negative in (original.negative, None):
        original.negative = negative
        original.save(tmp_path / "p.safetensors")
        loaded = PromptEmbeddings.load(tmp_path / "p.safetensors")
        assert torch.equal(loaded.positive, original.positive)
        assert (loaded.negative is None) == (negative is None)
        assert (loaded.labels, loaded.model, loaded.model_fingerprint) == (
            original.labels,
            "ViT-B-16/openai",
            "abc",
        )
        assert (loaded.templates, loaded.templates_hash) == ("t", TEMPLATES.hash)
    assert [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        (["run", "\x1b[2Jtea"], "cannot be printed"),
        (["run", "\ud800"], "cannot be printed"),
        (["run", "RUN"], "twice"),
        (["run", "none of these"], "--min-confidence"),
    ],
)
def test_labels_of_a_file_of_embeddings_are_held_to_the_same_rules(
    tmp_path: Path, labels: list[str], what: str
) -> None:
    path = tmp_path / "p.safetensors"
    forged = {"zsar_prompt_embeddings": "1", "labels": json.dumps(labels)}
    save_file({"positive": F.normalize(torch.randn(2, 16), dim=-1)}, path, forged)
    text = refusal(PromptEmbeddings.load, path)
    assert what in text
    assert text.isprintable()


def test_another_model_is_an_error_that_names_both() -> None:
    prompts = embeddings()
    prompts.check_model("ViT-B-16/openai")
    text = refusal(prompts.check_model, "PE-Core-B-16/meta")
    assert "ViT-B-16/openai" in text
    assert "PE-Core-B-16/meta" in text
    prompts.model_fingerprint = "abc"
    prompts.check_model("moved/elsewhere", "abc")
    assert "other weights" in refusal(prompts.check_model, "ViT-B-16/openai", "abd")


def test_wrong_files(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    assert "embed-prompts" in refusal(PromptEmbeddings.load, path)
    assert "embed-prompts" in refusal(PromptEmbeddings.load, tmp_path)
    embeddings().save(path)
    whole = path.read_bytes()
    for cut in (0, 7, 30, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert "safetensors" in refusal(PromptEmbeddings.load, path)
    path.write_bytes(whole)
    tensors, good = load_file(path), {"zsar_prompt_embeddings": "1", "labels": '["a", "b"]'}
    save_file(tensors, path)
    assert "not written by" in refusal(PromptEmbeddings.load, path)
    nan = tensors["positive"].clone()
    nan[0, 0] = float("nan")
    wrong = [
        ({}, good),
        (tensors, good | {"labels": "["}),
        (tensors, good | {"labels": "3"}),
        (tensors, good | {"labels": '["a"]'}),
        (tensors, good | {"labels": "[1, 2]"}),
        (tensors | {"positive": nan}, good),
        (tensors | {"negative": nan}, good),
        (tensors | {"negative": torch.zeros(2, 3)}, good),
        (tensors | {"positive": torch.zeros(2)}, good),
        ({"positive": torch.zeros(0, 16)}, good | {"labels": "[]"}),
    ]
    for content, metadata in wrong:
        save_file(content, path, metadata)
        assert "create it again" in refusal(PromptEmbeddings.load, path)
    save_file({k: v.half() for k, v in tensors.items()}, path, good)
    assert PromptEmbeddings.load(path).positive.dtype == torch.float32


# --- files


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")

    def fail_halfway() -> None:
        with atomic_write(path) as aside:
            aside.write_text("half of the n")
            assert aside.parent == tmp_path
            assert aside.suffix == ".json"
            assert path.read_text() == "old"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_text() == "old"
    with atomic_write(path) as aside:
        aside.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    with atomic_write(path) as aside:
        save_file({"x": torch.zeros(1)}, aside)  # which makes a private file in its place
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    def attempt(path: Path, error: Exception | None = None) -> None:
        with atomic_write(path):
            if error:
                raise error

    assert "does not exist" in refusal(attempt, tmp_path / "missing" / "x")
    assert "is a directory" in refusal(attempt, tmp_path)
    assert "the disk is full" in refusal(attempt, tmp_path / "x", OSError(28, "No space left on device"))
    assert "permission denied" in refusal(attempt, tmp_path / "x", PermissionError(13, "no"))
    assert "does not exist" in refusal(attempt, Path("/proc/nothing/x"))
    with pytest.raises(FileNotFoundError):
        attempt(tmp_path / "x", FileNotFoundError(2, "of something else"))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_devices_are_written_to_themselves(tmp_path: Path) -> None:
    with atomic_write("/dev/null") as aside:
        aside.write_text("gone")
    assert Path("/dev/null").is_char_device()
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with atomic_write(tmp_path / "link") as aside:
        aside.write_text("new")
    assert (tmp_path / "link").read_text() == "new"  # in place of the link, and not through it
    assert (tmp_path / "real").read_text() == "old"


def test_read_text(tmp_path: Path) -> None:
    assert read_text(write(tmp_path, "a", b"\xef\xbb\xbfa\r\nb\rc\n")) == "a\nb\nc\n"
    refusal(read_text, "a\0b")


def test_importing_prompts_does_not_import_torch() -> None:
    code = "import sys, zsar_cli.text.embeddings; from zsar_cli.text.labels import load_labels; "
    code += (
        "from zsar_cli.text.templates import load_templates; load_labels('ucf101'), load_templates('video')"
    )
    code += "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_was_put_aside_for_a_damaged_cache_is_not_replaced(tmp_path: Path) -> None:
    cache = TextCache(tmp_path)
    cache.put("m", {"a": np.ones(4, np.float32)})
    (path,) = tmp_path.iterdir()
    path.write_text("somebody's")
    path.with_name(f"{path.name}.old").write_text("somebody else's")
    TextCache(tmp_path).put("m", {"a": np.ones(4, np.float32)})
    path.unlink()
    assert {p.read_text() for p in tmp_path.iterdir()} == {"somebody's", "somebody else's"}
