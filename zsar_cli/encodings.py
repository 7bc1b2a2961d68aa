r"""Decoding of text files to strings with ``\n`` between the lines.

Supported are UTF-8, and UTF-16 and UTF-32 as PowerShell and Excel write them, with or without a byte order mark. Older
encodings are refused: Windows-1252 cannot be told from Windows-1251, and a wrong guess would change words.
"""

from __future__ import annotations

import codecs
import re

from zsar_cli.errors import UsageError

# UTF-32 before UTF-16, whose mark is the start of its own
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_LINE_END = re.compile("\r\n|\r")
_BREAK = re.compile("[\n\x85\u2028\u2029]")
# What else is handed over as a text by mistake: its first bytes, and what to do
_NO_TEXT = (
    (b"PK\x03\x04", "a spreadsheet or an archive, not text; save it as CSV (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet, not text; save it as CSV (UTF-8)"),
    (b"version https://git-lfs", "a pointer of Git LFS; fetch the file itself with `git lfs pull`"),
    (b"<!doctype html", "a web page, not the file itself; download it again"),
    (b"<html", "a web page, not the file itself; download it again"),
)


def encoding_of(content: bytes) -> tuple[str, int]:
    """Find the encoding of a text that starts with ``content``, and the length of its byte order mark."""
    for mark, name in MARKS:
        if content.startswith(mark):
            return name, len(mark)
    if content.count(0) > 1:  # text without a mark holds a NUL in UTF-16 and UTF-32 alone
        for name in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
            if _could_be(content, name):
                return name, 0
    return "utf-8", 0


def _could_be(content: bytes, name: str) -> bool:
    """Tell whether NULs are only where this encoding has those of Latin letters, and what it gives is text."""
    width = 4 if "32" in name else 2
    whole = content[: len(content) // width * width]
    if width == 2:
        nulls = whole[0::2].count(0), whole[1::2].count(0)
        if name.endswith("be"):
            nulls = nulls[::-1]
        if nulls[0] or not nulls[1]:
            return False
    try:
        text = whole.decode(name)
    except UnicodeDecodeError as error:
        if len(whole) - error.start > 2:  # else half of a pair, which the next piece of a stream completes
            return False
        text = whole[: error.start].decode(name)
    # Plain letters with a NUL here and there, as paths that NULs end, would make Chinese of one line
    few = width == 2 and content.isascii() and 2 * content.count(0) < len(whole)
    return not _CONTROL.search(text) and not (few and not re.search(r"[\r\n]", text))


def decode(content: bytes, name: object, *, keep_bytes: bool = False) -> str:
    r"""Decode a file's text, without byte order marks and with ``\n`` after each line.

    Args:
        name: what an error calls it.
        keep_bytes: bytes that are not UTF-8 become surrogates, as in file names, instead of an error.

    Raises:
        UsageError: it is no text, or in an encoding that cannot be told.
    """
    start = content[:200].lstrip().lower()
    for magic, what in _NO_TEXT:
        if start.startswith(magic.lower()):
            raise UsageError(f"{name} is {what}.")
    encoding, mark = encoding_of(content)
    try:
        text = content[mark:].decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise UsageError(
                f"{name} starts as {encoding[:6].upper()} text but continues as something else; save it as UTF-8."
            ) from error
        if b"\0" in content:
            raise UsageError(f"{name} is not a text file.") from error
        if not keep_bytes:
            raise UsageError(f"{name} is not UTF-8 text{_likely(content)}.") from error
        text = content[mark:].decode("utf-8", errors="surrogateescape")
    if "\0" in text:
        raise UsageError(f"{name} is not a text file.")
    text = _LINE_END.sub("\n", text)
    return re.sub("(?m)^\ufeff", "", text)  # a mark in the middle: two files were joined


def lines_of(text: str) -> list[str]:
    """Split a text into lines; ends that other systems have (NEL, LINE SEPARATOR) count too."""
    return _BREAK.split(text)


def _likely(content: bytes) -> str:
    """Guess the encoding of a text that is not UTF-8, and say what to do."""
    try:
        runs = re.findall(r"[^\x00-\x7f]+", content.decode("cp1252"))
    except UnicodeDecodeError:
        runs = ["???"]
    if all(len(run) < 3 for run in runs):  # letters with accents stand among plain ones
        return " but looks like Windows-1252, as Excel saves CSV; save it as CSV UTF-8"
    return " but in an older encoding; save it as UTF-8"
