"""Writes Parquet files with pyarrow, if it is installed, in row groups of bounded size.

Ids, sequences and times are int64, the same numbers as in the other formats: readers differ in how
they return Parquet timestamps, some in microseconds only. Type, user, producer and `props` (JSON)
are text.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from itertools import islice
from typing import Any, BinaryIO

from logd.errors import NotInstalled
from logd.render import COLUMNS, to_json
from logd_wire.query import Row

INT64_COLUMNS = {"id", "ts_ns", "stored_ns", "sequence"}
# Rows are converted to columns this many at a time; a row group is written at these sizes.
ROWS_PER_STEP = 512
GROUP_ROWS_MAX = 16_384
GROUP_BYTES_MAX = 32 * 1024 * 1024


def check_installed() -> None:
    """Raises NotInstalled if pyarrow is not installed."""
    _pyarrow()


def write(rows: Iterable[Row], out: BinaryIO) -> None:
    """Writes rows as a Parquet file. Raises NotInstalled, or OSError from `out`."""
    pa, pq = _pyarrow()
    schema = pa.schema(
        [(name, pa.int64() if name in INT64_COLUMNS else pa.string()) for name in COLUMNS]
    )
    remaining = iter(rows)
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        group: list[Any] = []
        while step := list(islice(remaining, ROWS_PER_STEP)):
            group.append(pa.RecordBatch.from_arrays(_columns(pa, schema, step), schema=schema))
            if _is_full(group):
                _flush(pa, writer, group)
        if group:
            _flush(pa, writer, group)


def _pyarrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise NotInstalled(
            f"the format parquet needs pyarrow: {error}. Install it beside logd: "
            "`pip install 'logd[parquet]'`, or choose --format jsonl or csv."
        ) from error


def _columns(pa: Any, schema: Any, rows: list[Row]) -> list[Any]:
    return [
        pa.array(
            [to_json(row["props"]) for row in rows]
            if field.name == "props"
            else [row[field.name] for row in rows],
            field.type,
        )
        for field in schema
    ]


def _is_full(group: list[Any]) -> bool:
    rows, size = sum(step.num_rows for step in group), sum(step.nbytes for step in group)
    return bool(rows >= GROUP_ROWS_MAX or size >= GROUP_BYTES_MAX)


def _flush(pa: Any, writer: Any, group: list[Any]) -> None:
    table = pa.Table.from_batches(group)
    writer.write_table(table, row_group_size=table.num_rows)
    group.clear()
