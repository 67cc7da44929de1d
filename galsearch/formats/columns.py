"""Single columns of a table file, a part at a time: vectors in one column or in many, pictures in Parquet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from galsearch.errors import SchemaError
from galsearch.formats.hats import ADDED, all_files, hats_root
from galsearch.formats.reading import PARQUET, named, read_table

PART_ROWS = 65_536  # of a column that is read a part at a time
PICTURE_ROWS = 64  # of a column of pictures
PICTURE_NAMES = ("image", "img", "picture", "cutout", "thumbnail", "jpg", "jpeg", "png", "image_bytes")


def column_names(path: Path, *, table_name: str | int | None = None) -> list[str]:
    """Return the names of a table's columns; of Parquet without reading more than its footer."""
    root = hats_root(path)
    if root is None and path.suffix.lower() not in PARQUET:
        return read_table(path, table_name=table_name).column_names
    from pyarrow import parquet

    with named(path):
        files = [path] if root is None else all_files(root)
        names = (name for file in files for name in parquet.read_schema(file, memory_map=True).names)
        return [name for name in dict.fromkeys(names) if root is None or name not in ADDED]


def vector_columns(names: Sequence[str], column: str) -> list[str]:
    """Return the columns that hold the vectors called `column`: that one, or in order those numbered after it.

    Numbers begin at 0 or 1, and none may be missing. Raises SchemaError when there are no such columns.

        >>> vector_columns(["id", "feat_10", *(f"feat_{n}" for n in range(10))], "feat_*")[-2:]
        ['feat_9', 'feat_10']
    """
    if column in names:
        return [column]
    stem = column.removesuffix("*")
    numbered = re.compile(rf"{re.escape(stem)}_?(\d+)" if stem else r"\d+")
    result = sorted((int(match[1]), name) for name in names if stem and (match := numbered.fullmatch(name)))
    if not result:
        raise SchemaError(
            f"no column '{column}' and none numbered after it, such as '{stem.rstrip('_')}_0'; "
            f"there are: {', '.join(names[:50])}{f' and {len(names) - 50} more' if len(names) > 50 else ''}"
        )
    first = result[0][0]
    for expected, (number, name) in enumerate(result, start=first):
        if first > 1 or number != expected:
            raise SchemaError(
                f"columns numbered after '{stem}': '{name}' comes where number {expected if first <= 1 else 0} should; "
                "they must count up from 0 or 1, each once"
            )
    return [name for _, name in result]


def column_parts(path: Path, column: str, *, table_name: str | int | None = None) -> Iterator[pa.Array]:
    """Yield one column of a table a part at a time; of Parquet without ever having all of it in memory.

    Vectors that lie in many columns (`feat_0` to `feat_767`, called `feat_*`) come as one `fixed_size_list` of floats,
    NaN where a number is missing. Raises SchemaError when there is no such column, or when the file cannot be read.
    """
    root = hats_root(path)
    if root is not None:
        for file in all_files(root):
            yield from column_parts(file, column)
        return
    if path.suffix.lower() not in PARQUET:
        table = read_table(path, table_name=table_name)
        with named(path):
            names = vector_columns(table.column_names, column)
            for batch in table.select(names).to_batches(PART_ROWS):
                yield _joined(batch)
        return
    from pyarrow import parquet

    with named(path), parquet.ParquetFile(path, memory_map=True) as file:
        names = vector_columns(file.schema_arrow.names, column)
        for batch in file.iter_batches(PART_ROWS if len(names) == 1 else PART_ROWS // 16, columns=names):
            yield _joined(batch.select(names))


def _joined(batch: pa.RecordBatch) -> pa.Array:
    """Return the only column, or all as one `fixed_size_list` a row."""
    if batch.num_columns == 1:
        return batch.column(0)
    kinds = {field.type for field in batch.schema}
    odd = [kind for kind in kinds if not (pa.types.is_floating(kind) or pa.types.is_integer(kind))]
    if odd:
        name = next(field.name for field in batch.schema if field.type == odd[0])
        raise SchemaError(f"column {name} of the vectors is {odd[0]}, expected numbers")
    kind = pa.float32() if kinds <= {pa.float16(), pa.float32()} else pa.float64()
    values = np.stack([_numbers(column, kind) for column in batch.columns], axis=1)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), batch.num_columns)


def _numbers(column: pa.Array, kind: pa.DataType) -> np.ndarray:
    return column.cast(kind, safe=False).fill_null(float("nan")).to_numpy(zero_copy_only=False)


# ---- pictures


def picture_column(path: Path) -> str | None:
    """Return the column of a Parquet file that holds encoded pictures, None where there is none.

    It is a struct with `bytes` (the layout of data sets on the Hugging Face hub: `image: {bytes, path}`), else a
    binary column of a usual name.
    """
    if path.suffix.lower() not in PARQUET:
        return None
    from pyarrow import parquet

    with named(path):
        schema = parquet.read_schema(path, memory_map=True)
    structs = [field.name for field in schema if pa.types.is_struct(field.type) and _bytes_of(field.type) is not None]
    plain = [field.name for field in schema if _is_binary(field.type) and field.name.lower() in PICTURE_NAMES]
    return next(iter([*structs, *plain]), None)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _bytes_of(kind: pa.StructType) -> pa.Field | None:
    index = kind.get_field_index("bytes")
    return kind.field(index) if index >= 0 and _is_binary(kind.field(index).type) else None


class ByteColumn:
    """The encoded pictures of one column of a Parquet file; `cells[row]` is bytes, or None where there is none.

    Rows that are asked for in order are read once, a few at a time. `names` is what the file calls each picture
    (`path` of the hub's layout), None where it does not say.

    Raises SchemaError when there is no such column, when it holds no bytes, and when a part cannot be read.
    """

    def __init__(self, path: Path, column: str) -> None:
        from pyarrow import parquet

        self.path, self.column = path, column
        with named(path):
            self._file = parquet.ParquetFile(path, memory_map=True)
            self._starts = np.cumsum([0, *(self._group(n).num_rows for n in range(self._file.num_row_groups))])
            names = self._file.schema_arrow.names
            if column not in names:
                raise SchemaError(f"no column '{column}'; there are: {', '.join(names)}")
            kind = self._file.schema_arrow.field(column).type
            self._is_struct = pa.types.is_struct(kind)
            if not (_is_binary(kind) or (self._is_struct and _bytes_of(kind) is not None)):
                raise SchemaError(f"column '{column}' is {kind}, expected pictures: binary, or a struct with bytes")
            self.names = self._names(kind)
        self._first, self._cells, self._batches = 0, pa.array([], pa.binary()), iter(())

    def _group(self, number: int):
        return self._file.metadata.row_group(number)

    def _names(self, kind: pa.DataType) -> list[str | None]:
        if not self._is_struct or kind.get_field_index("path") < 0:
            return [None] * len(self)
        parts = self._file.iter_batches(PART_ROWS, columns=[f"{self.column}.path"])
        return [name for batch in parts for name in batch.column(0).field("path").to_pylist()]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> bytes | None:
        """Return the encoded picture of a row."""
        if not 0 <= row < len(self):
            raise IndexError(f"row is {row}, there are {len(self)}")
        with named(self.path):
            while not 0 <= row - self._first < len(self._cells):
                self._advance(row)
        return self._cells[row - self._first].as_py()

    def _advance(self, row: int) -> None:
        """Go to the next batch, or to the beginning of the row group of `row`."""
        after = self._first + len(self._cells)
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        batch = next(self._batches, None) if self._starts[group] <= after <= row else None
        if batch is None:
            after = int(self._starts[group])
            wanted = [f"{self.column}.bytes" if self._is_struct else self.column]
            self._batches = self._file.iter_batches(PICTURE_ROWS, row_groups=[group], columns=wanted)
            batch = next(self._batches, None)
        if batch is None or not len(batch):
            raise SchemaError(f"row {row} of column '{self.column}' cannot be read; the file is damaged")
        cells = batch.column(0)
        self._first, self._cells = after, cells.field("bytes") if self._is_struct else cells

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
