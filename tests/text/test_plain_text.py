"""What strangers wrote, in terminals and spreadsheets."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zsar_cli.text.plain_text import FORMULA, csv_text, printable

FORMULAS = [
    "=1+1",
    "+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =1",
    "\uff1d1",
    '=HYPERLINK("http://x";"y")',
    "-",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text: str) -> None:
    ((cell, number),) = csv.reader(io.StringIO(csv_text([[text, 0.5]])))
    assert cell.startswith("'")
    assert cell[1:] == printable(text)
    assert number == "0.5"


def test_cells_that_other_separators_would_cut_are_quoted() -> None:
    assert csv_text([["a;=1+1", 1]]) == '"a;\'=1+1",1\n'
    assert csv_text([["plain", 1, ""]]) == "plain,1,\n"


@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=12), min_size=2))
@settings(deadline=None)
@example(["", ";=", ";'=", "a; '", "';'"])
def test_texts_come_back_when_an_apostrophe_is_taken_off_that_leads_or_follows_a_semicolon(
    texts: list[str],
) -> None:
    (row,) = csv.reader(io.StringIO(csv_text([texts])))
    assert not any(cell[:1] in FORMULA for cell in row if cell)
    back = [re.sub("(;[ \xa0]*)'", r"\1", cell.removeprefix("'")) for cell in row]
    assert back == [printable(text) for text in texts]


@given(st.text())
@settings(deadline=None)
def test_nothing_steers_a_terminal(text: str) -> None:
    shown = printable(text) + csv_text([[text]])
    assert not any((ord(letter) < 32 and letter != "\n") or 0x7F <= ord(letter) < 0xA0 for letter in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    shown.encode("utf-8")


def test_where_semicolons_divide_columns_no_formula_begins_a_cell() -> None:
    text = csv_text([["v.mp4", 28, ";=cmd|'/C calc'!A0;", 0.5], ["a; -1+1;@x", 1, "b;c", 2]])
    for delimiter in ",;":
        for row in csv.reader(io.StringIO(text), delimiter=delimiter):
            assert not any(cell.strip()[:1] in tuple("=+-@") for cell in row if cell.strip()), row
