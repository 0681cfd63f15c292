"""Tables that name patients' images; only their owner may read them, from the first byte on."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.files import whole_file


def write_private_table(frame: pd.DataFrame, schema: pa.Schema, path: Path) -> None:
    """Write a table as Parquet, whole or not at all, with owner-only permissions.

    Args:
        frame: has the schema's columns; other columns are left out.
        schema: the columns in their order.
        path: the file.
    """
    table = pa.Table.from_pandas(frame[schema.names], schema, preserve_index=False)
    with whole_file(path, owner_only=True) as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary, compression="zstd")


def read_private_table(path: Path, schema: pa.Schema) -> pd.DataFrame:
    """Read a table that `write_private_table` wrote.

    Args:
        path: the file.
        schema: the columns to read.

    Raises:
        InputError: the file is missing, damaged or lacks a column of the schema.
    """
    try:
        return pq.read_table(path, columns=schema.names, schema=schema).to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise unreadable(
            "cannot read a table of pairs", error, path, "delete it and rerun the privacy stage"
        ) from None
