"""CSV for spreadsheets and for programs: RFC 4180, UTF-8, one header line, one line end (CRLF) after every record.

1. No byte order mark: programs would read it as a part of the first column's name. In Excel, choose UTF-8 on import.
2. A text that a spreadsheet would run as a formula gets a ``'`` in front (OWASP ASVS 1.2.10): one that begins with
   ``= + - @``, their full-width forms, TAB, CR, LF or NUL, also after invisible characters. A phone number with its
   ``+`` is not a formula and stays. Numbers are written as numbers, with their minus.
   A spreadsheet may also split at ``;``, TAB, ``|`` or a line end, and use another quote than ours. So a sign after one
   of these, or after a comma, gets the ``'`` as well.
3. NUL, at which many readers stop, becomes U+2400 (a visible NUL). All other characters stay as they are, also ESC and
   U+2028; a lone surrogate was U+FFFD already when the page was read. NDJSON holds the server's own text.
4. A field is quoted if it holds one of these separators, a quote or a line end.
5. None and the empty text are an empty field, lists and objects are JSON, moments are ISO 8601 with their offset.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from servetel_async.protocol.clock import IST, name_zone, zone_named
from servetel_async.sinks.files.compression import PackedFile
from servetel_async.sinks.table.columns import MOMENTS, columns_named, flat_records, pieces_of, values_by_name
from servetel_async.sinks.table.timestamps import stamps_of, texts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from servetel_async.sinks.sink import Batch
    from servetel_async.sinks.table.columns import Column

    Converter = Callable[[Sequence[Any]], Iterable[str]]

LINE_END = "\r\n"
_RISKY = frozenset("=+-@\t\r\n\0＝＋－＠")  # noqa: RUF001 - the full-width forms are meant
#: Control characters, marks of direction and width that a spreadsheet may drop before it looks for a sign.
_MARKS = (0xAD, 0x61C, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF)
_UNSEEN = "".join(map(chr, (*range(1, 32), *range(127, 160), *_MARKS)))
_SUSPECT = _RISKY | frozenset(_UNSEEN)
_is_phone = re.compile(r"\+?[0-9]{6,15}").fullmatch
#: Where a spreadsheet may split a line.
_SEPARATORS = ",;|\t\r\n"
_needs_quotes = re.compile(f'["{_SEPARATORS}]').search
_INVISIBLE = "".join(each for each in _UNSEEN if each not in _SEPARATORS)
_GAP = re.escape(f"{_SEPARATORS}\"'{_INVISIBLE}")
#: A separator before a sign, with the quotes and invisible characters around it. A number of JSON is not a formula.
_before_sign = re.compile(
    f"(?<![{_GAP}])[\"'{re.escape(_INVISIBLE)}]*+[{_SEPARATORS}][{_GAP}]*+(?=[{re.escape(''.join(_RISKY))}])"
    r"(?![+-][0-9]++(?:\.[0-9]++)?(?:[,\]}]|\Z))"
)
_VISIBLE_NUL = "\u2400"


class CsvEncoder:
    """Calls as lines of a CSV file; see ``sink.Encoder``.

    Args:
        columns: names from ``check_columns``, in the order of the file.
        packing: ``".gz"`` or ``".zst"``; see ``compression.PackedFile``.
    """

    def __init__(self, columns: tuple[str, ...], packing: str | None = None) -> None:
        self._names = columns
        self._file = PackedFile(packing)
        self._columns = [(column.name, _converter(column)) for column in columns_named(columns)]

    def open(self, path: Path) -> None:
        """Create the file, and write the header."""
        self._file.open(path)
        self._write([",".join(self._names)])

    def write(self, batch: Batch) -> None:
        """Append a window."""
        for piece in pieces_of(batch):
            self._write_piece(piece)

    def _write_piece(self, piece: Batch) -> None:
        values = values_by_name(flat_records(piece))
        zone = zone_named(name_zone(piece.zone)) or IST
        columns = [
            texts_of(stamps_of(values, name), zone) if name in MOMENTS else _converted(values[name], convert)
            for name, convert in self._columns
        ]
        if len(columns) == 1:  # an empty line would be no record
            self._write([text or '""' for text in columns[0]])
        else:
            self._write(map(",".join, zip(*columns, strict=True)))

    def _write(self, lines: Iterable[str]) -> None:
        text = LINE_END.join([*lines, ""])
        self._file.write(text.replace("\0", _VISIBLE_NUL).encode())

    def close(self) -> None:
        """Make the file durable (fsync), and close it."""
        self._file.close()

    def abandon(self) -> None:
        """Close the file."""
        self._file.abandon()


def _converter(column: Column) -> Converter:
    if column.kinds == frozenset({str}):
        return _texts
    if column.kinds == frozenset({bool}):
        return _bools
    if column.kinds and column.kinds <= {int, float}:
        return _numbers
    return lambda values: _mixed(values, column.converter)


def _converted(values: Sequence[Any], convert: Converter) -> Iterable[str]:
    return [""] * len(values) if values.count(None) == len(values) else convert(values)


def _texts(values: Sequence[str | None]) -> list[str]:
    distinct = list(set(values))
    if 2 * len(distinct) > len(values):
        return _fields(values)
    known = dict(zip(distinct, _fields(distinct), strict=True))  # names and numbers repeat: each is checked once
    return list(map(known.__getitem__, values))


def _fields(values: Iterable[str | None]) -> list[str]:
    texts = ["" if text is None else text if text[:1] not in _SUSPECT else _guard(text) for text in values]
    if _needs_quotes("".join(texts)) is None:  # the usual case, and one search of a long text is the fastest
        return texts
    return [text if _needs_quotes(text) is None else _quoted(text) for text in texts]


def _guard(text: str) -> str:
    if _is_phone(text) or (text[0] not in _RISKY and text.lstrip(_UNSEEN)[:1] not in _RISKY):
        return text
    return f"'{text}"


def _quoted(text: str) -> str:
    """Quote a text, and guard the signs in it that come after a separator."""
    doubled = _before_sign.sub(r"\g<0>'", text).replace('"', '""')
    return f'"{doubled}"'


def _bools(values: Iterable[bool | None]) -> list[str]:
    return ["" if value is None else "true" if value else "false" for value in values]


def _numbers(values: Iterable[float | None]) -> list[str]:
    return ["" if value is None else str(value) for value in values]


def _mixed(values: Iterable[Any], convert: Callable[[Any], str | None] | None) -> list[str]:
    """Guard texts only; JSON begins with a bracket, a digit, a word or a number's minus."""
    texts: list[str] = []
    for value in values:
        if value is None:
            texts.append("")
            continue
        if isinstance(value, str):
            text = value if value[:1] not in _SUSPECT else _guard(value)
        else:
            text = str(value) if convert is None else convert(value) or ""
        texts.append(text if _needs_quotes(text) is None else _quoted(text))
    return texts
