"""Read text tables: CSV and its kin, whose separator, encoding, comments and decimal mark no file says of itself.

A small head of the file decides. Where commas (in .tsv tabs) explain it, that is all; else clevercsv finds the
separator. Text that is not UTF-8 is decoded as charset_normalizer thinks best, and a note says so. pyarrow then reads
the rows; columns that it takes for text although all their cells are blank or numbers become numbers.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from galsearch.errors import SchemaError
from galsearch.formats import standards
from galsearch.formats.fields import describe, spelled
from galsearch.formats.request import Request, check_count

HEAD_BYTES = 2**16
HEAD_LINES = 100
CELL = 2**24  # characters of a cell, in the head and where the csv module reads the rows
COMMENT_BYTES, COMMENT_LINES = 2**22, 20_000  # in which the header must come
LINE_BYTES = 2**20  # in which a carriage return may end a line
SNIFFED_LINES = 40  # clevercsv weighs every separator on them: a few milliseconds
SNIFFED_BYTES = 2**14
SEPARATORS = (",", ";", "\t", "|", " ")
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
ENCODINGS = ["cp1252", "cp1251", "koi8_r", "shift_jis", "euc_jp", "gb18030", "big5"]  # what tables are written in
FORMATS = {  # of astropy.io.ascii, by how they begin
    "ipac": rb"\A(\\[^\n]*\n)*[ ]*\|[^\n]*\|\s*\n[ ]*\|",
    "mrt": rb"(?m)\A(Title:|[^\n]*\n)[^\0]*?^Byte-by-byte Description of file",
    "sextractor": rb"\A#\s*1\s+[A-Z_]\w*\s[^\n]*\n#\s*\d+\s+[A-Z_]",
    "daophot": rb"\A#K\s",
}
NULLS = ["", "NaN", "nan", "NAN", "null", "NULL", "N/A", "n/a", "NA", "--", "masked"]
BLANKS = [*NULLS, "None", "none", "-", "...", "…"]  # in a column whose other cells are numbers
RETRIES = 5  # with one column more as text, then all are
_LONG_WORD = re.compile(r"[^\s,;|\"']{80,}")
_NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
_INTEGER = r"[-+]?\d+"
_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")
_RULE = re.compile(r"\s*-{2,}\s*")  # VizieR's line of dashes between the units and the rows


@dataclass(frozen=True)
class _Layout:
    """How the lines of a text table are to be read; `start` is the byte of its first row."""

    names: list[str]
    separator: str
    start: int
    units: list[str] = field(default_factory=list)
    decimal: str = "."
    quote: str = '"'
    blank_before_quote: bool = False


def read(content: bytes, request: Request, *, separator: str = ",") -> pa.Table:
    """Read a text table; `separator` is the one that its suffix promises, and that is tried first."""
    if content.lstrip(b"\xef\xbb\xbf").startswith(b"# %ECSV"):
        return standards.read_ecsv(content, request)
    request.must_be_the_only_table()
    content = _as_utf8(content, request)
    csv.field_size_limit(max(csv.field_size_limit(), CELL))
    for format_name, pattern in FORMATS.items():
        if re.search(pattern, content[:HEAD_BYTES]):
            return _by_astropy(content, format_name, request)
    layout = _layout(content, separator, request)
    if layout.separator == " ":
        return _by_astropy(content, "commented_header" if content.startswith(b"#") else "basic", request)
    _check_quotes(content, layout)
    rows = _without_comments(content[layout.start :], request)
    if layout.quote != '"' or layout.blank_before_quote:
        rows, layout = _rewritten(rows, layout), _Layout(layout.names, ",", 0, layout.units, layout.decimal)
    return _named(_parsed(rows, layout, request), layout, request)


# ---- encoding


def _as_utf8(content: bytes, request: Request) -> bytes:
    """Return the text as UTF-8 without a byte-order mark; a note says what else it was taken for."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16").encode()
    if b"\0" in content[:HEAD_BYTES]:
        return _from_utf16(content)
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        text, encoding = _decoded(content, error.start)
        cells = re.split(r"[,;\t|\r\n]+", text)
        seen = next(cell for cell in cells if not cell.isascii()).strip()[:40]
        request.notes.append(f"it is not UTF-8 and was read as {encoding}, such as '{seen}'")
        return text.encode()
    return content


def _from_utf16(content: bytes) -> bytes:
    """Return UTF-16 without a byte-order mark, whose ASCII has every other byte zero, as UTF-8."""
    head = content[:HEAD_BYTES]
    for encoding, zeros, letters in (("utf-16-le", head[1::2], head[::2]), ("utf-16-be", head[::2], head[1::2])):
        if zeros.count(0) > 0.9 * len(zeros) and not letters.count(0):
            return content.decode(encoding).encode()
    raise ValueError("it holds binary data, not text")


def _decoded(content: bytes, start: int) -> tuple[str, str]:
    """Return text that is not UTF-8 and its encoding.

    Lone odd bytes among ASCII letters, as in "B\xf6ker", are Western European, which no statistics of letters can tell
    from a few others on a line or two; words that are all odd bytes are left to charset_normalizer.
    """
    from charset_normalizer import from_bytes

    sample = content[content.rfind(b"\n", 0, start) + 1 :][:HEAD_BYTES]
    odd = [len(run) for run in re.findall(rb"[\x80-\xff]+", sample)]
    lone = odd.count(1) >= len(odd) / 2
    best = None if lone else from_bytes(sample, cp_isolation=ENCODINGS).best()
    tried = ("cp1252", "latin_1") if lone else () if best is None else (best.encoding,)
    for encoding in tried:
        with contextlib.suppress(UnicodeDecodeError):
            return content.decode(encoding), encoding
    raise SchemaError("it is not UTF-8 and its encoding cannot be told; save it as UTF-8")


# ---- layout


def _layout(content: bytes, expected: str, request: Request) -> _Layout:
    lines = _head(content)
    header, first = _header_line(lines, expected)
    rows = [line for _, line in lines[first:] if line.strip() and not line.startswith("#")]
    separator, quote = _separator([header, *rows], expected)
    if separator != expected:
        request.notes.append(f"it is separated by {NAMES[separator]}")
    names = [name.strip() for name in next(csv.reader([header], **_reader(separator, quote)), [])]
    check_count(len(names))
    if not any(names):
        raise ValueError("it is empty, or its first line is")
    if separator != " " and len(names) > 1 and all(re.fullmatch(_NUMBER, name) for name in names):
        raise SchemaError("its first line has numbers and not the names of the columns; put a line of names above it")
    units, first = _units(lines, first, separator)
    cells = [cell for line in rows[:HEAD_LINES] for cell in line.split(separator)]
    comma = separator != "," and any(map(_DECIMAL_COMMA.fullmatch, cells))
    if comma and not any(re.fullmatch(r"\s*[-+]?\d+\.\d+\s*", cell) for cell in cells):
        request.notes.append("its numbers have decimal commas")
        decimal = ","
    else:
        decimal = "."
    blanks = any(f'{separator} "' in line for line in [header, *rows])
    start = lines[first][0] if first < len(lines) else len(content)
    return _Layout(names, separator, start, units, decimal, quote, blanks)


def _head(content: bytes) -> list[tuple[int, str]]:
    """Return the first lines, each with the byte where it begins; comments before the header are never too many."""
    result: list[tuple[int, str]] = []
    start = seen = 0
    while start < len(content) and seen < HEAD_LINES and start < COMMENT_BYTES and len(result) < COMMENT_LINES:
        end = content.find(b"\n", start)
        end = len(content) if end < 0 else end
        alone = content.find(b"\r", start, min(end, start + LINE_BYTES))
        end = end if alone < 0 else alone
        result.append((start, content[start:end].decode("utf-8", "replace")))
        seen += content[start : start + 1] != b"#"
        start = end + (2 if content[end : end + 2] == b"\r\n" else 1)
    return result


def _header_line(lines: list[tuple[int, str]], separator: str) -> tuple[str, int]:
    """Return the line of names and the number of the line after it.

    Leading lines that start with "#" are comments (SkyServer writes `#Table1`), unless the last of them has as
    many cells as a first row of numbers: then it is the header (`#id,ra,dec`). Empty lines before it are passed over.
    """
    number = next((n for n, (_, line) in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    first = lines[number][1] if number < len(lines) else ""
    comments = [n for n in range(number) if lines[n][1].startswith("#")]
    if comments:
        last = lines[comments[-1]][1]
        for mark in dict.fromkeys((separator, *SEPARATORS[:-1])):
            cells, row = last.split(mark), first.split(mark)
            if len(cells) == len(row) > 1 and any(re.fullmatch(rf"\s*{_NUMBER}\s*", cell) for cell in row):
                return last.lstrip("# "), number
        if not first:
            return last.lstrip("# "), number
    return first, number + 1


def _reader(separator: str, quote: str) -> dict:
    return {"delimiter": separator, "quotechar": quote, "skipinitialspace": True}


def _separator(lines: list[str], expected: str) -> tuple[str, str]:
    """Return what separates the cells and what quotes them: as expected where that makes a table, else as sniffed."""
    if _makes_a_table(lines, expected):
        return expected, '"'
    plain = [separator for separator in SEPARATORS[:-1] if _makes_a_table(lines, separator)]
    if len(plain) == 1:
        return plain[0], '"'
    from clevercsv import Error, Sniffer

    sample = "\n".join(lines[:SNIFFED_LINES])[:SNIFFED_BYTES] + "\n"
    sample = _LONG_WORD.sub("x", sample)  # its patterns of addresses take minutes on one
    try:
        result = Sniffer().sniff(sample, delimiters=list(SEPARATORS))
    except Error:
        result = None
    if result is None or result.delimiter not in SEPARATORS or result.delimiter not in lines[0]:
        return expected, '"'
    if result.delimiter == " " and not _makes_a_table([" ".join(line.split()) for line in lines], " "):
        return expected, '"'
    return result.delimiter, result.quotechar or '"'


def _makes_a_table(lines: list[str], separator: str) -> bool:
    """Return whether the first line has several cells, and the others as many."""
    counts = [len(row) for row in csv.reader(lines, **_reader(separator, '"')) if row]
    whole = counts[: -1 if len(lines) >= HEAD_LINES else None] or counts  # the last may be cut
    return bool(whole) and whole[0] > 1 and len(set(whole)) == 1


def _units(lines: list[tuple[int, str]], first: int, separator: str) -> tuple[list[str], int]:
    """Return the units that VizieR writes under the names, above a line of dashes, and the number of the first row."""
    for ruled in (first, first + 1):
        if ruled < len(lines) and all(map(_RULE.fullmatch, lines[ruled][1].split(separator))):
            return (lines[first][1].split(separator) if ruled > first else []), ruled + 1
    return [], first


# ---- rows


def _check_quotes(content: bytes, layout: _Layout) -> None:
    """Refuse a quote that is never closed, or only by the one that opens a later cell: it takes the rows between.

    Every other cell has its quotes in pairs, so that an even number of them need not be looked at.
    """
    quote, separator = layout.quote.encode(), layout.separator.encode()
    if not content.count(quote) % 2:
        return
    q, ends = re.escape(quote), rb"[\r\n" + re.escape(separator) + rb"]"
    blanks = rb" *" if layout.quote != '"' or layout.blank_before_quote else b""
    cell = rb"(?:\A|" + ends + rb")" + blanks + rb"(%b[^%b]*(?:%b%b[^%b]*)*)(?:%b *(\Z|(?=%b))?|\Z)"
    for match in re.finditer(rb"(?:\A|\n)#[^\n]*|" + cell % (q, q, q, q, q, q, ends), content):
        if match[1] is not None and match[2] is None and (match.end(1) == len(content) or b"\n" in match[1]):
            line = 1 + content.count(b"\n", 0, match.start(1))
            raise SchemaError(
                f"a quote that opens in line {line:,} is not closed; close it or write it twice in quotes"
            )


def _without_comments(rows: bytes, request: Request) -> bytes:
    """Return the rows without lines that start with "#", but those in the middle of a quoted cell."""
    if not (rows.startswith(b"#") or b"\n#" in rows):
        return rows
    kept, begin, quotes, count = [], 0, 0, 0
    for match in re.finditer(rb"(?m)^#[^\n]*\n?", rows):
        quotes += rows.count(b'"', begin, match.start())
        kept.append(rows[begin : match.start()])
        begin = match.start()
        if not quotes % 2:
            begin, count = match.end(), count + 1
    if count:
        request.notes.append(f"comment lines (#) between its rows were left out, {count:,} of them")
    return b"".join([*kept, rows[begin:]])


def _rewritten(rows: bytes, layout: _Layout) -> bytes:
    """Return rows that pyarrow cannot read as they are, with other quotes or blanks before them, as plain CSV."""
    text = io.StringIO(rows.decode(), newline="")
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(csv.reader(text, **_reader(layout.separator, layout.quote)))
    return buffer.getvalue().encode()


def _parsed(rows: bytes, layout: _Layout, request: Request) -> pa.Table:
    """Return the rows as pyarrow reads them; a column that changes its type on the way is read as text."""
    from pyarrow import csv as arrow_csv

    keys = [f"{number}" for number in range(len(layout.names))]  # names may be empty or alike
    if not rows.strip():
        return pa.table({key: pa.array([], pa.string()) for key in keys})
    texts = {key for key, name in zip(keys, layout.names, strict=True) if request.wants_text(name)}
    tried = 0
    while True:
        try:
            return arrow_csv.read_csv(
                io.BytesIO(rows),
                read_options=arrow_csv.ReadOptions(column_names=keys),
                parse_options=arrow_csv.ParseOptions(delimiter=layout.separator, newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(texts, pa.string()), null_values=NULLS, decimal_point=layout.decimal
                ),
            )
        except pa.ArrowInvalid as error:
            match = re.search(r"In CSV column #(\d+)", str(error))
            if match is None or len(texts) == len(keys):
                raise _explained(error, layout) from None
            tried += 1
            texts = {*texts, match[1]} if tried < RETRIES else set(keys)


def _explained(error: pa.ArrowInvalid, layout: _Layout) -> Exception:
    """Return pyarrow's error on a row of another length with what to do about it."""
    told = str(error).splitlines()[0][:160]
    if "Expected" not in told:
        return ValueError(told)
    return SchemaError(f"{told}; cells that hold {NAMES[layout.separator]} must be in quotes")


def _named(table: pa.Table, layout: _Layout, request: Request) -> pa.Table:
    """Return the table with its names and units; columns without name and content are left out."""
    arrays, fields = [], []
    for number, (name, values) in enumerate(zip(layout.names, table.columns, strict=True), start=1):
        forced = request.wants_text(name)
        if pa.types.is_time(values.type):  # pyarrow takes right ascension 00:42:44 for a time of day
            values = values.cast(pa.string())
        if pa.types.is_string(values.type):
            values = _trimmed(values) if forced else _as_numbers(_trimmed(values), layout.decimal)
        if not name and values.null_count == len(values):
            continue
        if not name:
            name = f"column_{number}"
            request.notes.append(f"column {number} has no name and is called '{name}'")
        unit = layout.units[number - 1].strip() if number <= len(layout.units) else ""
        arrays.append(values)
        fields.append(describe(pa.field(name, values.type), unit=spelled(unit, "vounit")))
    return pa.table(arrays, schema=pa.schema(fields))


def _trimmed(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return text without blanks around it; an empty cell is null."""
    values = pc.utf8_trim_whitespace(values)
    return pc.if_else(pc.equal(values, ""), pa.scalar(None, values.type), values)


def _as_numbers(values: pa.ChunkedArray, decimal: str) -> pa.ChunkedArray:
    """Return text that is all numbers, or words for none, as integers where they fit in 64 bits, else as floats."""
    told = pc.if_else(pc.is_in(values, value_set=pa.array(BLANKS)), pa.scalar(None, pa.string()), values)
    some = told.drop_null()
    if decimal != ".":
        told, some = (pc.replace_substring(text, decimal, ".") for text in (told, some))
    if not len(some) or not pc.all(pc.match_substring_regex(some, rf"^({_NUMBER}|[-+]?(inf|Inf|INF|nan))$")).as_py():
        return values
    if pc.all(pc.match_substring_regex(some, rf"^{_INTEGER}$")).as_py():
        try:
            return pc.replace_substring_regex(told, r"^\+", "").cast(pa.int64())
        except pa.ArrowInvalid:  # more digits than 64 bits hold: text keeps them
            return values
    return pc.replace_substring_regex(told, r"^\+", "").cast(pa.float64())


def _by_astropy(content: bytes, format_name: str, request: Request) -> pa.Table:
    """Read a table in one of the formats that `astropy.io.ascii` knows by name."""
    from astropy.io import ascii as text_tables

    options = {} if format_name in FORMATS else {"fill_values": [(word, "0") for word in NULLS if word]}
    with standards.quiet():
        table = text_tables.read(content.decode(), format=format_name, guess=False, **options)
    result = standards.from_astropy(table, request)
    if format_name not in FORMATS:
        for number, (field, values) in enumerate(zip(result.schema, result.columns, strict=True)):
            if pa.types.is_string(field.type) and not request.wants_text(field.name):
                values = _as_numbers(values, ".")
                result = result.set_column(number, field.with_type(values.type), values)
    return result
