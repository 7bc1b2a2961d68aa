"""Class files of every program, perturbed as they are in the wild, and what each label may hold."""

from __future__ import annotations

import json
import random
import string
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from zsar_cli.data.lines import read_lines
from zsar_cli.errors import UsageError
from zsar_cli.text.labels import clean, load_labels

NAMES = ("riding a horse", "making tea", "no")
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def load(tmp_path: Path, name: str, content: str | bytes) -> tuple[str, ...]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_labels(str(path)).names


def refused(tmp_path: Path, name: str, content: str | bytes) -> str:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, name, content)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("SSv2 labels.json", '{"riding a horse": "0", "making tea": "1", "no": "2"}'),
        ("cls2index.json", '{"making tea": 1, "no": 2, "riding a horse": 0}'),
        ("index2cls.json", '{"2": "no", "0": "riding a horse", "1": "making tea"}'),
        (
            "config.json",
            '{"model_type": "x", "id2label": {"0": "riding a horse", "1": "making tea", "2": "no"}, '
            '"label2id": {"riding a horse": 0, "making tea": 1, "no": 2}}',
        ),
        ("label2id.json", '{"label2id": {"riding a horse": 0, "making tea": 1, "no": 2}}'),
        (
            "features.json",
            '{"features": {"label": {"names": ["riding a horse", "making tea", "no"], "_type": "x"}}}',
        ),
        (
            "coco.json",
            '{"info": {}, "categories": [{"id": 3, "name": "no"}, {"id": 1, "name": "riding a horse"}, '
            '{"id": 2, "name": "making tea"}]}',
        ),
        ("cvat.json", '[{"name": "riding a horse", "id": 1}, {"name": "making tea"}, {"name": "no"}]'),
        ("pairs.json", '[["riding a horse", 0], ["making tea", 1], ["no", 2]]'),
        ("keyed.json", '{"1": {"name": "riding a horse"}, "2": {"name": "making tea"}, "3": {"name": "no"}}'),
        ("c.jsonl", '{"id": 0, "name": "riding a horse"}\n{"id": 1, "name": "making tea"}\n{"name": "no"}\n'),
        ("array.txt", '["riding a horse",\n "making tea", "no"]'),
        ("data.yaml", "train: x\nval: y\nnc: 3\nnames: [riding a horse, making tea, no]\n"),
        ("data.yaml", "path: x\nnames:\n  0: riding a horse\n  1: making tea\n  2: no\n"),
        ("names.yaml", "names:\n- 0: riding a horse\n- 1: making tea\n- 2: no\n"),
        ("map.yaml", "riding a horse: 0\nmaking tea: 1\nno: 2\n"),
        (
            "x.pbtxt",
            "item {\n  id: 1\n  name: 'riding a horse'\n}\nitem { name: \"making tea\" id: 2 }\nitem{name:'no' id:3}",
        ),
        (
            "studio.xml",
            '<View><Choices name="x"><Choice value="riding a horse"/><Choice value="making tea"/>'
            '<Choice alias="n" value="no"/></Choices></View>',
        ),
        ("classInd.txt", "1 riding a horse\n2 making tea\n3 no\n"),
        ("classInd.txt", "0 riding a horse\n1 making tea\n2 no\n"),
        ("shuffled.txt", "2 making tea\n1 riding a horse\n3 no\n"),
        ("dots.txt", "1. riding a horse\n2. making tea\n3. no"),
        ("brackets.txt", "1) riding a horse\n2) making tea\n3) no"),
        ("ava.txt", "1: riding a horse\n5: making tea\n80: no\n"),
        ("ntu.txt", "A1. riding a horse\nA2. making tea\nA3. no\n"),
        ("Charades_v1_classes.txt", "c000 riding a horse\nc001 making tea\nc002 no\n"),
        ("moments_categories.txt", "riding a horse,0\nmaking tea,1\nno,2\n"),
        ("reverse.txt", "riding a horse 1\nmaking tea 2\nno 3\n"),
        ("tabs.txt", "0\triding a horse\n1\tmaking tea\n2\tno\n"),
        ("header.txt", "id name\n0 riding a horse\n1 making tea\n2 no\n"),
        ("header.txt", "labels\nriding a horse\nmaking tea\nno\n"),
        ("class.csv", "class\nriding a horse\nmaking tea\nno\n"),
        ("label.csv", "\ufeffid,label\n0,riding a horse\n1,making tea\n2,no\n"),
        ("excel.csv", "\ufeffid;name\r\n0;riding a horse\r\n1;making tea\r\n2;no\r\n"),
        ("sep.csv", "sep=;\r\nid;name\r\n0;riding a horse\r\n1;making tea\r\n2;no"),
        ("tabs.csv", "id\tname\n0\triding a horse\n1\tmaking tea\n2\tno\n"),
        ("t2l.csv", 'SNo,Class Name,GPT3 discription\n1,riding a horse,"a\nb, c"\n2,making tea,d\n3,no,"e"\n'),
        ("own words.csv", "Nummer,Handlung\n0,riding a horse\n1,making tea\n2,no\n"),
        ("last.csv", "name,id\nriding a horse,0\nmaking tea,1\nno,2\n"),
        ("ends.csv", "id,name,\n0,riding a horse,\n1,making tea,\n2,no,\n"),
        ("jester.csv", "riding a horse\nmaking tea\nno"),
        ("x.tsv", "label_id\tlabel_name\tlabel_type\n1\triding a horse\tA\n2\tmaking tea\tB\n3\tno\tA\n"),
        ("quotes.txt", '"riding a horse"\n"making tea"\n"no"\n'),
        ("commas.txt", "riding a horse,\nmaking tea,\nno,\n"),
        ("bullets.txt", "- riding a horse\n- making tea\n- no\n"),
        ("yaml.txt", "names:\n  - riding a horse\n  - making tea\n  - no\n"),
        ("python.txt", "['riding a horse', 'making tea', 'no']"),
        ("python.txt", "{'riding a horse': 0, 'making tea': 1, 'no': 2}\n"),
        ("single.txt", "'riding a horse'\n'making tea'\n'no'\n"),
        ("tight.txt", "1.riding a horse\n2.making tea\n3.no\n"),
        ("line.txt", "riding a horse, making tea, no\n"),
        ("line.csv", "riding a horse;making tea;no"),
        ("inner.json", '{"making tea": {"id": 1}, "riding a horse": {"id": 0}, "no": {"id": 2}}'),
        ("counts.csv", "name,videos\nriding a horse,10\nmaking tea,3\nno,7\n"),
        ("coco.names", "riding a horse\nmaking tea\nno\n"),
        (
            "imagenet_class_index.json",
            '{"0": ["n01440764", "riding a horse"], "1": ["n01443537", "making tea"], "2": ["n01484850", "no"]}',
        ),
        ("codes.json", '{"c000": "riding a horse", "c001": "making tea", "c002": "no"}'),
        ("codes.json", '{"riding a horse": "c000", "making tea": "c001", "no": "c002"}'),
        ("lists.json", '{"making tea": [1], "riding a horse": [0], "no": [2]}'),
        ("some.txt", "1 riding a horse\n17 making tea\n101 no\n"),
        ("dashes.txt", "0-riding a horse\n1-making tea\n2-no\n"),
        ("strokes.txt", "0_riding a horse\n1_making tea\n2_no\n"),
        ("table.md", "| id | name |\n|---:|:---|\n| 0 | riding a horse |\n| 1 | making tea |\n| 2 | no |\n"),
        ("comments.txt", "riding a horse # on grass\nmaking tea\t#  hot\nno\n"),
    ],
)  # fmt: skip
def test_class_files_of_other_programs_give_the_names(name: str, content: str, tmp_path: Path) -> None:
    assert load(tmp_path, name, content) == NAMES


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("people.txt", "2 people dancing\n3 people dancing\n", ("2 people dancing", "3 people dancing")),
        ("parts.txt", "part 1\npart 2\n", ("part 1", "part 2")),
        ("goals.txt", "10 push ups\nclapping\n", ("10 push ups", "clapping")),
        ("years.json", '{"0": "1984", "1": "2001"}', ("1984", "2001")),
        ("prose.txt", "lifting it, then letting go\nrunning, fast\n", None),
        ("times.txt", "3:15 alarm\n4:30 alarm\n", ("3:15 alarm", "4:30 alarm")),
        ("line.txt", "lifting it, then letting go\n", None),
        ("braces.txt", "{a} moves\n{b} moves\n", None),
        ("braces.txt", "[a] moves [b]\nwalking\n", None),
        ("said.txt", '"yes" gesture\nwaving\n', ('"yes" gesture', "waving")),
        ("ssv2.json", '{"Moving [something] up": "0"}', ("Moving something up",)),
        ("sparse.csv", "0,run\n7,walk, then run\n", ("run", "walk, then run")),
        ("count.txt", "1 person dancing\n2 people dancing\n5 people dancing\n", None),
        ("heights.txt", "10 metres\n5 metre dive\n3 metre dive\n", None),
        ("sharp.txt", "play C# 2\nuse #hashtags\n", None),
        ("described.json", '{"0": "Yoga: slow poses", "1": "At 10:30 sharp"}', ("Yoga", "At 10:30 sharp")),
    ],
)
def test_what_belongs_to_a_name_stays(name: str, content: str, expected, tmp_path: Path) -> None:
    assert load(tmp_path, name, content) == (expected or tuple(content.splitlines()))


def test_what_is_taken_off_is_told(tmp_path: Path, caplog) -> None:
    load(tmp_path, "classInd.txt", "1 run\n2 walk\n")
    assert "'1 run' is 'run'" in caplog.text
    load(tmp_path, "c.csv", "class\nrun\nwalk\n")
    assert "the first line, 'class', is read as a header" in caplog.text
    load(tmp_path, "d.csv", "id,name,about\n0,run,x\n1,walk,y\n")
    assert "ignored: about" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("mixed.json", '{"run": 0, "walk": "a person walks"}', "some labels have a number"),
        ("weights.json", '{"run": 0.5, "walk": 1.5}', "instead of a description"),
        ("two.csv", "run,fast\nwalk,slow\n", "id,name"),
        ("open.csv", 'id,name\n0,"run', "not CSV"),
        ("ragged.csv", "id;name\n0;run\n1;run; then jump\n", "line 3"),
        ("x.json", '[{"id": 3}]', "entry 1"),
        ("descriptors.json", '{"0": ["it rolls", "it falls"], "1": ["it flies"]}', "no names"),
        ("three.txt", "1\trun\trun fast\n2\twalk\twalk slow\n", "column 2 ('run') or 3 ('run fast')"),
        ("three.csv", "0,run,sport\n1,walk,rest\n", "id,name,description"),
        ("lfs.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "Git LFS"),
        ("page.txt", "<!DOCTYPE html>\n<title>404</title>", "web page"),
        ("book.csv", b"PK\x03\x04" + bytes(range(200)), "spreadsheet"),
        ("old.csv", "id;name\n0;Fu\xdfball\n".encode("cp1252"), "Windows-1252"),
        ("old.txt", "\u0431\u0435\u0433\n".encode("cp1251"), "older encoding"),
        ("cut.txt", "run\nwalk\n".encode("utf-16")[:-1], "save it as UTF-8"),
        ("huge.txt", "9" * 9_000 + " run\n" + "x" * 20_000, "characters"),
        ("none.txt", "run\nNone of These\n", "--min-confidence"),
        ("nf.txt", "caf\xe9\ncafe\u0301\n", "twice"),
        ("hidden.txt", "run\nru\u200bn\n", "twice"),
        ("control.txt", "run\x1b[31m\n", "cannot be printed"),
    ],
)
def test_class_files_that_cannot_be_meant_are_refused_in_a_sentence(
    name: str, content: str | bytes, what: str, tmp_path: Path
) -> None:
    text = refused(tmp_path, name, content)
    assert what in text
    assert "\n" not in text
    assert "\x1b" not in text
    assert len(text) < 400


def test_labels_of_all_scripts_are_kept(tmp_path: Path) -> None:
    names = (
        "\u05e8\u05d9\u05e6\u05d4\u200f (run)",
        "\u0645\u06cc\u200c\u062f\u0648\u062f",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 family",
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f flag",
        "caf\xe9",
        "\u8dd1\u6b65, \u8d70",
    )
    assert load(tmp_path, "l.txt", "\n".join(names)) == names
    assert load(tmp_path, "l.txt", "cafe\u0301\nr\xadun\n") == ("caf\xe9", "run")


def test_labels_that_differ_in_punctuation_alone_are_told(tmp_path: Path, caplog) -> None:
    assert len(load(tmp_path, "l.txt", "brush_hair\nBrush Hair\nBrushHair\n")) == 3
    assert "share their score" in caplog.text


def test_a_missing_file_of_labels_is_called_missing(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("run\n")
    for spec, what in (
        (tmp_path / "lables.txt", r"did you mean .*labels\.txt\?$"),
        (tmp_path / "other.csv", "does not exist"),
        (tmp_path / "nowhere" / "labels.txt", "its folder does not exist"),
        ("run,jump", "--label"),
        ("kinetics40", "did you mean kinetics400"),
    ):
        with pytest.raises(UsageError, match=what):
            load_labels(str(spec))


@pytest.mark.parametrize("line", ["a" + " " * 60_000 + "b", "a," * 60_000, "1" * 60_000 + " a", '"' * 60_001])
@pytest.mark.parametrize("name", ["l.txt", "l.csv"])
def test_long_lines_take_no_time_in_their_square(tmp_path: Path, name: str, line: str) -> None:
    with suppress(UsageError):
        load(tmp_path, name, f"{line}\n{line}x\n")
    with suppress(UsageError):
        read_lines(f"{line}\n{line}x\n")


def test_tens_of_thousands_of_labels(tmp_path: Path) -> None:
    names = [f"label {'x' * (i % 7)}{i}" for i in range(30_000)]
    assert load(tmp_path, "l.txt", "\n".join(names)) == tuple(names)
    assert load(tmp_path, "m.json", json.dumps({name: i for i, name in enumerate(names)})) == tuple(names)


@pytest.mark.parametrize("label", ["\ud800", "\udcff.mp4", "a\x00b", "", 3, None, "x" * 100_000])
def test_labels_that_nothing_could_take_are_refused(label: object) -> None:
    with pytest.raises(UsageError) as caught:
        load_labels(None, [label])  # type: ignore[list-item]
    assert str(caught.value).isprintable()


words = st.text(string.ascii_letters + "\xe4\xe9\u8dd1\u6b65", min_size=1, max_size=8)
phrases = st.lists(words, min_size=1, max_size=4).map(" ".join)
lists_of_names = st.lists(phrases, min_size=2, max_size=8, unique_by=str.casefold).filter(
    lambda names: not {name.casefold() for name in names} & {"name", "class", "label", "nom"}
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")


@FUZZ
@example(["\u6b65", "\u6b65\u6b65"], " ", 0, "\n", "utf-16-le", "", False)
@given(
    lists_of_names,
    st.sampled_from([" ", "\t", ",", ";", ": ", ", ", ". ", "|"]),
    st.sampled_from([0, 1]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(ENCODINGS),
    st.sampled_from(["", "end", "blanks"]),
    st.booleans(),
)
def test_numbered_names_come_back_however_they_are_written(
    tmp_path: Path, names, mark: str, base: int, end: str, encoding: str, last: str, shuffled: bool
) -> None:
    lines = [f"{i}{mark}{name}" for i, name in enumerate(names, base)]
    if shuffled:
        random.Random(len(names)).shuffle(lines)
    text = end.join(lines) + {"": "", "end": end, "blanks": f"{end}  {end}{end}"}[last]
    assert load(tmp_path, "l.txt", text.encode(encoding)) == tuple(names)


@FUZZ
@given(
    lists_of_names,
    st.sampled_from("\t;,|"),
    st.sampled_from(["id{}name", "name{}id", "class_id{}class_name", "index{}label", ""]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_tables_give_their_names(
    tmp_path: Path, names, mark: str, header: str, end: str, quoted: bool
) -> None:
    cells = [[str(i), f'"{name}"' if quoted else name] for i, name in enumerate(names)]
    if header.startswith("name"):
        cells = [row[::-1] for row in cells]
    lines = [header.format(mark)] * bool(header) + [mark.join(row) for row in cells]
    assert load(tmp_path, "l.csv", end.join(lines)) == tuple(names)


@FUZZ
@given(st.text(max_size=40))
def test_a_cleaned_label_stays_as_it_is(text: str) -> None:
    try:
        once = clean(text, "x")
    except UsageError:
        return
    assert clean(once, "x") == once


def test_every_published_class_file_reads_to_its_names(shared: Path, caplog) -> None:
    for path in sorted((shared / "data" / "labels").iterdir()):
        rows = path.read_text(encoding="utf-8-sig").splitlines()
        if path.suffix == ".csv":
            expected = [row.split(",", 1)[1].strip().strip('"') for row in rows[1:] if row]
        else:
            expected = [row for row in rows if row]
        assert list(load_labels(str(path)).names) == expected, path.name
    assert not caplog.text


def test_the_cases_that_were_read_wrongly(shared: Path) -> None:
    folder = shared / "cases" / "labels"
    motion = load_labels(str(folder / "motion_list.json"))
    for name in ("motion_map.json", "motion_classInd.txt", "motion_excel_de.csv"):
        assert load_labels(str(folder / name)) == motion, name
    for name, expected in {
        "tabs.csv": ("abseiling", "air drumming"),
        "class_header.csv": ("abseiling", "air drumming"),
        "name_comma_number.txt": ("clapping hands", "singing", "eating outside"),
        "name_to_number.json": ("Moving a thing away", "Moving a thing closer"),
        "yolo_list.yaml": ("person", "bicycle"),
    }.items():
        assert load_labels(str(folder / name)).names == expected
    with pytest.raises(UsageError, match="twice"):
        load_labels(str(folder / "dup_nf.txt"))


SETS = '{"spatial": ["a bow", "a target"], "temporal": ["an arm pulls", "it flies"]}'


@pytest.mark.parametrize(
    "content",
    [
        f'{{"archery": {SETS}, "no": {SETS}}}',
        f'[{{"name": "archery", {SETS[1:]}, {{"name": "no", {SETS[1:]}]',
        '{"archery": {"temporal": ["an arm pulls", "it flies"], "spatial": ["a bow", "a target"]}, "no": null}'.replace(
            "null", SETS
        ),
    ],
)
def test_spatial_descriptors_come_before_temporal_ones(tmp_path: Path, content: str) -> None:
    (tmp_path / "labels.json").write_text(content)
    labels = load_labels(str(tmp_path / "labels.json"))
    assert labels.names == ("archery", "no")
    assert labels.phrases == (("a bow", "a target", "an arm pulls", "it flies"),) * 2


@pytest.mark.parametrize("sets", ['{"spatial": ["a", "b"]}', '{"spatial": ["a", "b"], "temporal": ["c"]}'])
def test_sets_of_descriptors_that_differ_in_length_are_refused(tmp_path: Path, sets: str) -> None:
    assert "equally long" in refused(tmp_path, "labels.json", f'{{"archery": {sets}}}')
