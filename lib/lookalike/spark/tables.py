"""The Delta tables below `<root>/tables/`, read and written by name under the schemas' contracts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from delta import exceptions as delta
from delta.tables import DeltaMergeBuilder, DeltaTable
from filelock import FileLock
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from lookalike import delta_log, files, schemas
from lookalike.errors import TableDamaged
from lookalike.spark.selected import among


class Overtaken(Exception):
    """Another job added rows between a look at the table and the commit."""


# Another writer was faster. Delta lets only one of two commits in, and the other has to look at the table again.
_CONFLICTS = (
    delta.DeltaConcurrentModificationException,
    delta.ConcurrentWriteException,
    delta.MetadataChangedException,
    delta.ProtocolChangedException,
    delta.ConcurrentAppendException,
    delta.ConcurrentDeleteReadException,
    delta.ConcurrentDeleteDeleteException,
    delta.ConcurrentTransactionException,
    Overtaken,
)
_retried = retry(
    retry=retry_if_exception_type(_CONFLICTS),
    stop=stop_after_attempt(10),
    wait=wait_random_exponential(multiplier=0.2, max=10),
    reraise=True,
)

_APP = "lookalike"  # whose appends Delta numbers
_CHANGED = "changed meanwhile"  # then the key, on a line of its own


VERSION = pa.schema({"category": pa.string(), "version": pa.string()})

VersionKey = tuple[str, str]  # category, version

_FEW_FILES, _FEW_BYTES = 200, 2**20


class RowChanged(Exception):
    """A row is not what `Tables.swap` expected; the argument is the first part of its key."""


def version_key(row: Row) -> VersionKey:
    return row["category"], row["version"]


def spark_schema(schema: pa.Schema) -> StructType:
    """Spark's form of an Arrow schema, comments included."""
    converted = from_arrow_schema(schema)
    for field in converted.fields:
        metadata = schema.field(field.name).metadata or {}
        field.metadata = {key.decode(): value.decode() for key, value in metadata.items()}
    return converted


def local_frame(spark: SparkSession, rows: Sequence[Sequence[Any]], schema: pa.Schema) -> DataFrame:
    """`rows`, each with the values of `schema` in order, as a part of the plan: no job is run to have them."""
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return spark.createDataFrame(pa.Table.from_arrays(arrays, schema=schema))


def conform(rows: DataFrame, schema: pa.Schema) -> DataFrame:
    """`rows` with the contract's columns in the contract's order and types."""
    return rows.select([rows[f"`{f.name}`"].cast(f.dataType).alias(f.name) for f in spark_schema(schema).fields])


def written(rows: DataFrame, path: str) -> DataFrame:
    """`rows` from Parquet files at `path` to which they are written now: nothing of them is computed twice."""
    rows.write.parquet(path)
    return rows.sparkSession.read.schema(rows.schema).parquet(path)


@dataclass(frozen=True)
class Tables:
    """All tables of one root. A table that was never written reads as empty."""

    spark: SparkSession
    root: str

    def path(self, name: str) -> str:
        return files.join(self.root, "tables", name)

    def read(self, name: str) -> DataFrame:
        """The table as it is now.

        Without a version a DataFrame would follow later commits, and each would drop what was persisted of it.
        """
        commits = delta_log.commits(self.path(name))
        if not commits:
            return local_frame(self.spark, [], schemas.TABLES[name])
        rows = self._read_here(name, commits[-1]) if name in schemas.WITHOUT_IMAGES else None
        if rows is None:
            rows = self.spark.read.format("delta").option("versionAsOf", commits[-1]).load(self.path(name))
        added = [f for f in spark_schema(schemas.TABLES[name]).fields if f.name not in rows.columns]
        return rows.withColumns({f.name: F.lit(None).cast(f.dataType) for f in added}) if added else rows

    def _read_here(self, name: str, version: int) -> DataFrame | None:
        """The table where it is small, read by delta-rs: that takes a third of the time of Delta's jobs.

        None where it is large, or delta-rs can't read it; Spark then can, or says what is wrong.
        """
        try:
            table = delta_log.opened(self.path(name), version)
            sizes = table.get_add_actions(flatten=True)["size_bytes"].to_pylist()
            if len(sizes) > _FEW_FILES or sum(sizes) > _FEW_BYTES:
                return None
            return self.spark.createDataFrame(table.to_pyarrow_table())
        except (TableDamaged, OSError, pa.ArrowException):
            return None

    @_retried
    def append(self, name: str, rows: DataFrame) -> None:
        """Add `rows` in one commit, to one file a partition where the table has any."""
        new = conform(rows, schemas.TABLES[name])
        if partition := schemas.PARTITIONED_BY.get(name):
            new = new.repartition(partition)
        with self._only_writer(name):
            self._delta(name)
            new.write.format("delta").mode("append").save(self.path(name))

    def append_new(self, name: str, rows: DataFrame, key: Sequence[str]) -> None:
        """Add those of `rows` whose `key` the table lacks, in one commit, to files in which they stand as they come.

        `rows` are computed once, before the table is held. Their keys, `category` among them, must be few.
        """
        computed = rows.persist(StorageLevel.DISK_ONLY)
        try:
            given = computed.select(*key).distinct().collect()
            self._append_new(name, computed, key, given)
        finally:
            computed.unpersist()

    @_retried
    def _append_new(self, name: str, rows: DataFrame, key: Sequence[str], given: list[Row]) -> None:
        with self._only_writer(name) as alone:
            self._delta(name)
            seen = self.version(name)
            if not (lacking := self._lacking(name, key, given)):
                return
            if len(lacking) < len(given):
                wanted = local_frame(self.spark, lacking, pa.schema([schemas.TABLES[name].field(k) for k in key]))
                rows = rows.join(F.broadcast(wanted), list(key), "left_semi")
            new = conform(rows, schemas.TABLES[name]).write.format("delta").mode("append")
            if alone:
                new.save(self.path(name))
                return
            # By these numbers Delta refuses to commit beside another append, and skips this one if it saw less than
            # the last one left.
            new.option("txnAppId", _APP).option("txnVersion", seen + 1).save(self.path(name))
            if self._lacking(name, key, given):
                raise Overtaken(name)

    def _lacking(self, name: str, key: Sequence[str], given: list[Row]) -> list[Row]:
        """Those keys of `given` that the table lacks."""
        near = self.read(name).where(among({row["category"] for row in given}))
        known = set(near.select(*key).distinct().collect())
        return [row for row in given if row not in known]

    @_retried
    def upsert(self, name: str, rows: DataFrame, key: Sequence[str]) -> None:
        """Insert `rows`, replacing those of the same key, in one commit. `rows` must be cheap to read twice."""
        with self._only_writer(name):
            self._merge(name, rows, key).whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()

    @_retried
    def insert(self, name: str, rows: DataFrame, key: Sequence[str], lacking_at: int | None = None) -> None:
        """Insert those of `rows` whose key is new, in one commit: no file is written anew.

        No two of `rows` may have the same key. At its version `lacking_at` the table had none of these keys, so it is
        looked at again only where another job may have written since.
        """
        with self._only_writer(name) as alone:
            if alone and self.version(name) == lacking_at:
                self.append(name, rows)
            else:
                self._merge(name, rows, key).whenNotMatchedInsertAll().execute()

    @_retried
    def swap(self, name: str, rows: DataFrame, key: str, column: str) -> None:
        """`upsert` by one key column, as long as `column` of every row there is what `expected` of `rows` says.

        `expected` is null where no row is expected. Otherwise nothing is written, and RowChanged is raised. All in one
        commit, whoever else writes.
        """
        schema = schemas.TABLES[name]
        expected = schema.field(column).with_name("expected").with_nullable(True)
        source = conform(rows, schema.append(expected)).alias("new")
        values: dict[str, str | Column] = {f"`{n}`": f"new.`{n}`" for n in schema.names}
        refuse = f"raise_error(concat('{_CHANGED}\\n', new.`{key}`, '\\n'))"
        same_key = f"old.`{key}` = new.`{key}`"
        update = values | {f"`{key}`": f"if(old.`{column}` <=> new.expected, new.`{key}`, {refuse})"}
        insert = values | {f"`{key}`": f"if(new.expected IS NULL, new.`{key}`, {refuse})"}
        try:
            with self._only_writer(name):
                merge = self._delta(name).alias("old").merge(source, same_key)
                merge.whenMatchedUpdate(set=update).whenNotMatchedInsert(values=insert).execute()
        except Exception as error:
            # PySpark hands some of the JVM's exceptions on as they are.
            _, found, rest = str(error).partition(f"{_CHANGED}\n")
            if not found:
                raise
            raise RowChanged(rest.partition("\n")[0]) from None

    @_retried
    def delete(self, name: str, rows: DataFrame, key: Sequence[str]) -> None:
        """Delete the rows whose key is in `rows`, in one commit."""
        if delta_log.commits(self.path(name)):
            with self._only_writer(name):
                self._joined(name, rows, key).whenMatchedDelete().execute()

    def vacuum(self, name: str, hours: float) -> None:
        """Remove the table's own files that no version of it younger than `hours` needs."""
        if delta_log.commits(self.path(name)):
            DeltaTable.forPath(self.spark, self.path(name)).vacuum(hours)

    @_retried
    def version(self, name: str) -> int:
        """Delta version of the table as it is now."""
        commits = delta_log.commits(self.path(name))
        if not commits:
            self._delta(name)
            commits = delta_log.commits(self.path(name))
        return commits[-1]

    def _merge(self, name: str, rows: DataFrame, key: Sequence[str]) -> DeltaMergeBuilder:
        return self._joined(name, conform(rows, schemas.TABLES[name]), key)

    def _joined(self, name: str, rows: DataFrame, key: Sequence[str]) -> DeltaMergeBuilder:
        same_key = " AND ".join(f"old.`{column}` <=> new.`{column}`" for column in key)
        return self._delta(name).alias("old").merge(rows.alias("new"), same_key)

    def _delta(self, name: str) -> DeltaTable:
        """The table, created empty where it is missing, so that its comments and constraints stand.

        One that an older release made gets the columns that came since.
        """
        path = self.path(name)
        if not delta_log.commits(path):
            with self._only_writer(name):
                empty = self._empty(name).write.format("delta").mode("ignore")
                if partition := schemas.PARTITIONED_BY.get(name):
                    empty = empty.partitionBy(partition)
                empty.save(path)
        table = DeltaTable.forPath(self.spark, path)
        if set(schemas.TABLES[name].names) - set(table.toDF().columns):
            with self._only_writer(name):
                self._empty(name).write.format("delta").mode("append").option("mergeSchema", True).save(path)
            table = DeltaTable.forPath(self.spark, path)
        return table

    def _empty(self, name: str) -> DataFrame:
        return self.spark.createDataFrame([], spark_schema(schemas.TABLES[name]))

    @contextmanager
    def _only_writer(self, name: str) -> Iterator[bool]:
        """On a local disk wait until no other process writes the table: there Delta guards the threads of one JVM only.

        On HDFS Delta needs no help; on S3 the run holds the whole root, see `writer_lock`. Gives whether no other job
        can write the table meanwhile.
        """
        if not files.is_local(self.root):
            yield "s3" in files.filesystem(self.root)[0].protocol
            return
        folder = Path(files.filesystem(self.root)[1], ".locks")
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock", is_singleton=True):  # the same one where this is nested
            yield True
