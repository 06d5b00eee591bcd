"""Delta tables without Spark: the commits, by the names of the log's files, and the table itself, by delta-rs.

What is written here is safe from other writers only under the lock of a local disk, see `spark.tables`.
"""

import os
import pickle
import re
import subprocess
import sys
from multiprocessing import spawn
from typing import Any, Literal

import pyarrow as pa
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.exceptions import DeltaError
from pyarrow.parquet import filters_to_expression

from lookalike import files
from lookalike.child_process import environment, program_of
from lookalike.errors import TableDamaged

Filters = list[tuple[str, str, Any]] | None
"""Conditions (column, operator, value), all of which hold."""

_READ = program_of(__name__, "answer")


def list_commits(table: str) -> list[int]:
    """Versions in the log of the table at this uri; none where there is no table.

    Delta's own history reads all commits, which takes a Spark job, and its readers begin with whatever commit is there
    first; this lists the log. Raises TableDamaged where a commit is missing.
    """
    log = files.join(table, "_delta_log")
    versions, missing = _list_log(log)
    if missing:  # of two commits that came while the folder was listed, the second may be seen and not the first
        versions, missing = _list_log(log)
    if missing:
        raise TableDamaged(
            f"{log} lacks {missing[0]:020}.json: restore this file, as without it nobody knows what is in the table"
        )
    return versions


def open_table(table: str, version: int | None = None) -> DeltaTable:
    """The table at this uri by delta-rs, at a `version` or as it is now. Raises TableDamaged."""
    try:
        return DeltaTable(_to_delta_path(table), version)
    except DeltaError as error:
        raise TableDamaged(f"the log of {table} is damaged: restore {table}/_delta_log ({error})") from error


def read_rows(table: DeltaTable, filters: Filters = None) -> pa.Table:
    """Rows of the table; `filters` are pushed down to the files.

    With threads, Arrow gives the files of delta-rs back to Python after this returns. If the program has ended by
    then, it aborts.
    """
    where = filters_to_expression(filters) if filters else None
    return table.to_pyarrow_dataset().to_table(filter=where, use_threads=False)


def read(table: str, filters: Filters = None) -> pa.Table:
    """Rows of the table at this uri; `filters` are pushed down to the files. Raises TableDamaged."""
    global _process
    if _process in (None, os.getpid()):
        _process = os.getpid()
        try:
            return read_rows(open_table(table), filters)
        except BaseException as error:  # Rust's panic is no Exception
            if "Forked process" not in str(error):
                raise
            _process = _NONE  # others used delta-rs before the fork
    return _read_elsewhere(table, filters)


_process: int | None = None
"""The process that reads by delta-rs. Its threads do not survive a fork, after which it refuses all work."""
_NONE = 0


def _read_elsewhere(table: str, filters: Filters) -> pa.Table:
    """`read` by a new process, as a forked one can't."""
    ran = subprocess.run(
        [spawn.get_executable(), "-c", _READ],
        input=pickle.dumps((table, filters)),
        stdout=subprocess.PIPE,
        env=environment(),
        check=True,
    )
    outcome = pickle.loads(ran.stdout)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def answer() -> None:
    """The new process's side."""
    try:
        outcome: pa.Table | Exception = read(*pickle.load(sys.stdin.buffer))
    except Exception as error:
        outcome = error
    pickle.dump(outcome, sys.stdout.buffer)


def create(table: str, schema: pa.Schema, partition: str | None) -> None:
    """Make an empty table at this uri, with the schema's comments, where there is none."""
    nullable = pa.schema([field.with_nullable(True) for field in schema])  # as Spark makes its tables
    partitions = [partition] if partition else None
    DeltaTable.create(_to_delta_path(table), Schema.from_arrow(nullable), mode="ignore", partition_by=partitions)


def write(table: str, rows: pa.Table, mode: Literal["append", "overwrite"]) -> None:
    """Commit `rows` to the table at this uri."""
    write_deltalake(_to_delta_path(table), rows, mode=mode)


def _to_delta_path(table: str) -> str:
    if files.is_local(table):
        return files.filesystem(table)[1]
    return table.replace("#", "%23")  # it takes what follows the sign for a fragment, and decodes escapes


def _list_log(log: str) -> tuple[list[int], list[int]]:
    """List the commits in the folder, and those that are missing since its last checkpoint."""
    paths = files.list_files(log, depth=1)
    versions = sorted(int(path[:20]) for path in paths if re.fullmatch(r"\d{20}\.json", path))
    checkpoints = [int(path[:20]) for path in paths if re.match(r"\d{20}\.checkpoint\.", path)]
    needed = range(max(checkpoints, default=-1) + 1, max(versions, default=-1) + 1)
    return versions, sorted(set(needed) - set(versions))
