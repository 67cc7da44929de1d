"""Read and write tables as astronomers exchange them; only this package knows FITS tables, VOTable and DS9.

Inside galsearch a table is a `pyarrow.Table` whose fields carry `unit` (VOUnit), `ucd` (UCD1+) and
`description` as metadata. pyarrow reads and writes CSV and Parquet, astropy the rest; it is imported only then.
One rule for missing values on the way in: a masked cell, a NaN in a scalar column and, in every format but
Parquet, an empty string are null, since CSV, ECSV, FITS and VOTable cannot tell an empty string from a missing one.

    >>> import pyarrow as pa
    >>> print(format_table(pa.table({"object_id": ["a", "b"], "z": [0.1, None]}), "csv"), end="")
    "object_id","z"
    "a",0.1
    "b",
"""

from galsearch.formats.columns import ByteColumn, column_names, column_parts, picture_column, vector_columns
from galsearch.formats.fields import (
    FIELD_KEYS,
    NOTES_KEY,
    VOPARQUET_KEY,
    describe,
    facts_of,
    free_names,
    notes_of,
    with_notes,
    with_vo_facts,
)
from galsearch.formats.hats import all_files, hats_root, partitions_near, properties_of, write_hats
from galsearch.formats.reading import SUFFIXES, read_table, read_table_content, read_table_file
from galsearch.formats.standards import CUT_SHORT
from galsearch.formats.writing import (
    REGION_RADIUS_ARCSEC,
    format_table,
    table_bytes,
    to_astropy,
    to_pandas,
    write_table,
    write_text,
)

__all__ = [
    "CUT_SHORT",
    "FIELD_KEYS",
    "NOTES_KEY",
    "REGION_RADIUS_ARCSEC",
    "SUFFIXES",
    "VOPARQUET_KEY",
    "ByteColumn",
    "all_files",
    "column_names",
    "column_parts",
    "describe",
    "facts_of",
    "format_table",
    "free_names",
    "hats_root",
    "notes_of",
    "partitions_near",
    "picture_column",
    "properties_of",
    "read_table",
    "read_table_content",
    "read_table_file",
    "table_bytes",
    "to_astropy",
    "to_pandas",
    "vector_columns",
    "with_notes",
    "with_vo_facts",
    "write_hats",
    "write_table",
    "write_text",
]
