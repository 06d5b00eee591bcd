"""The Delta tables below `<root>/tables/`, read and written by name under the schemas' contracts."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
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
from lookalike.spark.category_conditions import FEW, is_among
from lookalike.spark.parquet_columns import INT96, read_columns


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
Key = tuple[Any, ...]

_FEW_FILES, _FEW_BYTES = 200, 2**20
_MANY_SMALL_FILES = 50


class RowChanged(Exception):
    """A row is not what `Tables.swap` expected; the argument is the first part of its key."""


def version_key_of(row: Row | Mapping[str, Any]) -> VersionKey:
    return row["category"], row["version"]


def to_spark_schema(schema: pa.Schema) -> StructType:
    """Spark's form of an Arrow schema, comments included."""
    converted = from_arrow_schema(schema)
    for field in converted.fields:
        metadata = schema.field(field.name).metadata or {}
        field.metadata = {key.decode(): value.decode() for key, value in metadata.items()}
    return converted


def make_local_frame(spark: SparkSession, rows: Sequence[Sequence[Any]], schema: pa.Schema) -> DataFrame:
    """`rows`, each with the values of `schema` in order, as a part of the plan: no job is run to have them."""
    return spark.createDataFrame(make_arrow_rows(rows, schema))


def make_arrow_rows(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.Table:
    """`rows`, each with the values of `schema` in order."""
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def select_versions(rows: DataFrame, versions: Collection[VersionKey]) -> DataFrame:
    """Those of `rows` that are of `versions`.

    Of few, by literals: Spark then needs no job to choose from a small table, and Delta reads less of a large one.
    """
    near = rows.where(is_among({category for category, _ in versions}))
    if len(versions) <= FEW:
        named = F.concat("category", F.lit("\n"), "version")
        return near.where(named.isin(*("\n".join(key) for key in versions)))
    wanted = make_local_frame(rows.sparkSession, sorted(versions), VERSION)
    return near.join(F.broadcast(wanted), VERSION.names, "left_semi")


def conform(rows: DataFrame, schema: pa.Schema) -> DataFrame:
    """`rows` with the contract's columns in the contract's order and types."""
    return rows.select([rows[f"`{f.name}`"].cast(f.dataType).alias(f.name) for f in to_spark_schema(schema).fields])


def write_and_read(rows: DataFrame, path: str) -> DataFrame:
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
        commits = delta_log.list_commits(self.path(name))
        if not commits:
            return make_local_frame(self.spark, [], schemas.TABLES[name])
        small = self._small(name, commits[-1])
        if small is not None:
            rows = self.spark.createDataFrame(small)
        else:
            rows = self.spark.read.format("delta").option("versionAsOf", commits[-1]).load(self.path(name))
        added = [f for f in to_spark_schema(schemas.TABLES[name]).fields if f.name not in rows.columns]
        return rows.withColumns({f.name: F.lit(None).cast(f.dataType) for f in added}) if added else rows

    def rows_of(self, name: str, versions: Collection[VersionKey]) -> list[Mapping[str, Any]]:
        """Rows of these versions, of a table that is small as a rule: then no Spark job is run for them."""
        commits = delta_log.list_commits(self.path(name))
        small = self._small(name, commits[-1]) if commits else None
        if small is None:
            return [row.asDict() for row in select_versions(self.read(name), versions).collect()]
        categories = pa.array(sorted({category for category, _ in versions}), pa.string())
        near = small.filter(pc.is_in(small["category"], categories)).to_pylist()
        wanted, absent = set(versions), dict.fromkeys(schemas.TABLES[name].names)
        return [absent | row for row in near if version_key_of(row) in wanted]

    def _small(self, name: str, version: int) -> pa.Table | None:
        """The table where it is small, read by delta-rs: that takes a third of the time of Delta's jobs.

        None where it is large, or delta-rs can't read it; Spark then can, or says what is wrong.
        """
        if name not in schemas.WITHOUT_IMAGES:
            return None
        try:
            table = delta_log.open_table(self.path(name), version)
            sizes = table.get_add_actions(flatten=True)["size_bytes"].to_pylist()
            return delta_log.read_rows(table) if len(sizes) <= _FEW_FILES and sum(sizes) <= _FEW_BYTES else None
        except (TableDamaged, OSError, pa.ArrowException):
            return None

    @_retried
    def append(self, name: str, rows: DataFrame) -> None:
        """Add `rows` in one commit, to one file a partition where the table has any."""
        new = conform(rows, schemas.TABLES[name])
        if partition := schemas.PARTITIONED_BY.get(name):
            new = new.repartition(partition)
        with self._only_writer(name):
            self.create(name)
            new.write.format("delta").mode("append").save(self.path(name))

    def append_rows(self, name: str, rows: pa.Table) -> None:
        """`append` of rows that are here, of a table without partitions: on a local disk no Spark job is run."""
        with self._only_writer(name) as alone:
            if self._without_spark(alone):
                self.create(name)
                delta_log.write(self.path(name), rows, "append")
            else:
                self.append(name, self.spark.createDataFrame(rows))

    def append_new(self, name: str, rows: DataFrame, key: Sequence[str], lacking_at: int | None = None) -> None:
        """Add those of `rows` whose `key` the table lacks, in one commit, to files in which they stand as they come.

        `rows` are computed once, before the table is held. Their keys, category and version among them, must be few.
        `lacking_at`: see `insert`.
        """
        computed = rows.persist(StorageLevel.DISK_ONLY)
        try:
            given = [tuple(row) for row in computed.select(*key).distinct().collect()]
            self._append_new(name, computed, key, given, lacking_at)
        finally:
            computed.unpersist()

    def append_new_rows(self, name: str, rows: pa.Table, key: Sequence[str]) -> None:
        """`append_new` of rows that are here: on a local disk no Spark job is run."""
        keys = list(zip(*(rows[column].to_pylist() for column in key), strict=True))
        given = list(dict.fromkeys(keys))
        with self._only_writer(name) as alone:
            if not self._without_spark(alone):
                self._append_new(name, self.spark.createDataFrame(rows), key, given)
            elif lacking := set(self.lacking(name, key, given)):
                self.append_rows(name, rows.filter(pa.array([values in lacking for values in keys])))

    @_retried
    def _append_new(
        self, name: str, rows: DataFrame, key: Sequence[str], given: list[Key], lacking_at: int | None = None
    ) -> None:
        with self._only_writer(name) as alone:
            self.create(name)
            seen = self.delta_version(name)
            is_as_before = lacking_at is not None and seen == max(lacking_at, 0)  # made just now, if it was missing
            lacking = given if alone and is_as_before else self.lacking(name, key, given)
            if not lacking:
                return
            if len(lacking) < len(given):
                wanted = make_local_frame(self.spark, lacking, pa.schema([schemas.TABLES[name].field(k) for k in key]))
                rows = rows.join(F.broadcast(wanted), list(key), "left_semi")
            new = conform(rows, schemas.TABLES[name]).write.format("delta").mode("append")
            if alone:
                new.save(self.path(name))
                return
            # By these numbers Delta refuses to commit beside another append, and skips this one if it saw less than
            # the last one left.
            new.option("txnAppId", _APP).option("txnVersion", seen + 1).save(self.path(name))
            if self.lacking(name, key, given):
                raise Overtaken(name)

    def lacking(self, name: str, key: Sequence[str], given: Collection[Key]) -> list[Key]:
        """Those of `given` that are the `key`, category and version among it, of no row of the table."""
        category, version = key.index("category"), key.index("version")
        versions = {(values[category], values[version]) for values in given}
        if name in schemas.WITHOUT_IMAGES:
            known = {tuple(row[column] for column in key) for row in self.rows_of(name, versions)}
        else:
            known = {tuple(row) for row in select_versions(self.read(name), versions).select(*key).distinct().collect()}
        return [values for values in given if values not in known]

    @_retried
    def upsert(self, name: str, rows: DataFrame, key: Sequence[str], partitions: Collection[int] | None = None) -> None:
        """Insert `rows`, replacing those of the same key, in one commit. `rows` must be cheap to read twice.

        `partitions`: where all of them are, and all that they replace, if that is known. Then these are written anew
        where no other job can write the table, which takes half as many Spark jobs as a MERGE.
        """
        with self._only_writer(name) as alone:
            if alone and partitions:
                self._rewrite(name, conform(rows, schemas.TABLES[name]), key, partitions)
            else:
                self._merge(name, rows, key).whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()

    def _rewrite(self, name: str, new: DataFrame, key: Sequence[str], partitions: Collection[int]) -> None:
        partition = schemas.PARTITIONED_BY[name]
        old = self.read(name).where(F.col(partition).isin(*partitions))
        replaced = reduce(and_, (F.col(f"old.{column}").eqNullSafe(F.col(f"new.{column}")) for column in key))
        kept = old.alias("old").join(new.select(*key).alias("new"), replaced, "left_anti")
        written_anew = f"{partition} IN ({', '.join(map(str, sorted(partitions)))})"
        rows = conform(kept, schemas.TABLES[name]).unionByName(new).repartition(partition)
        rows.write.format("delta").mode("overwrite").option("replaceWhere", written_anew).save(self.path(name))

    @_retried
    def replace(self, name: str, rows: DataFrame) -> None:
        """Put `rows` in place of all that the table holds, in one commit. `rows` must be cheap to read twice."""
        with self._only_writer(name):
            if rows.isEmpty() and self.read(name).isEmpty():
                return
            self.create(name)
            conform(rows, schemas.TABLES[name]).write.format("delta").mode("overwrite").save(self.path(name))

    @_retried
    def insert(self, name: str, rows: DataFrame, key: Sequence[str], lacking_at: int | None = None) -> None:
        """Insert those of `rows` whose key is new, in one commit: no file is written anew.

        No two of `rows` may have the same key. At its version `lacking_at` the table had none of these keys, so it is
        looked at again only where another job may have written since.
        """
        with self._only_writer(name) as alone:
            if alone and self.delta_version(name) == lacking_at:
                self.append(name, rows)
            else:
                self._merge(name, rows, key).whenNotMatchedInsertAll().execute()

    @_retried
    def swap(self, name: str, rows: pa.Table, key: str, column: str) -> None:
        """`upsert` by one key column, as long as `column` of every row there is what `expected` of `rows` says.

        `expected` is null where no row is expected. Otherwise nothing is written, and RowChanged is raised. All in one
        commit, whoever else writes.
        """
        with self._only_writer(name) as alone:
            self.create(name)
            small = self._small(name, self.delta_version(name)) if alone else None
            if small is None:
                self._swap_by_merge(name, rows, key, column)
                return
            there = dict(zip(small[key].to_pylist(), small[column].to_pylist(), strict=True))
            for value, expected in zip(rows[key].to_pylist(), rows["expected"].to_pylist(), strict=True):
                if there.get(value) != expected:
                    raise RowChanged(value)
            names = schemas.TABLES[name].names
            kept = small.filter(pc.invert(pc.is_in(small[key], rows[key]))).select(names)
            table = pa.concat_tables([kept.cast(rows.select(names).schema), rows.select(names)])
            if self._without_spark(alone):
                delta_log.write(self.path(name), table, "overwrite")
            else:
                new = conform(self.spark.createDataFrame(table), schemas.TABLES[name]).coalesce(1)
                new.write.format("delta").mode("overwrite").save(self.path(name))

    def _swap_by_merge(self, name: str, rows: pa.Table, key: str, column: str) -> None:
        schema = schemas.TABLES[name]
        expected = schema.field(column).with_name("expected").with_nullable(True)
        source = conform(self.spark.createDataFrame(rows), schema.append(expected)).alias("new")
        values: dict[str, str | Column] = {f"`{n}`": f"new.`{n}`" for n in schema.names}
        refuse = f"raise_error(concat('{_CHANGED}\\n', new.`{key}`, '\\n'))"
        same_key = f"old.`{key}` = new.`{key}`"
        update = values | {f"`{key}`": f"if(old.`{column}` <=> new.expected, new.`{key}`, {refuse})"}
        insert = values | {f"`{key}`": f"if(new.expected IS NULL, new.`{key}`, {refuse})"}
        try:
            merge = self._delta(name).alias("old").merge(source, same_key)
            merge.whenMatchedUpdate(set=update).whenNotMatchedInsert(values=insert).execute()
        except Exception as error:
            # PySpark hands some of the JVM's exceptions on as they are.
            _, marker, rest = str(error).partition(f"{_CHANGED}\n")
            if not marker:
                raise
            raise RowChanged(rest.partition("\n")[0]) from None

    @_retried
    def delete(self, name: str, rows: DataFrame, key: Sequence[str]) -> None:
        """Delete the rows whose key is in `rows`, in one commit."""
        if delta_log.list_commits(self.path(name)):
            with self._only_writer(name):
                self._joined(name, rows, key).whenMatchedDelete().execute()

    @_retried
    def compact(self, name: str) -> None:
        """Put the table's small files together where they are many: each commit leaves one."""
        if not delta_log.list_commits(self.path(name)):
            return
        with self._only_writer(name):
            table = DeltaTable.forPath(self.spark, self.path(name))
            (detail,) = table.detail().collect()
            if detail["numFiles"] > _MANY_SMALL_FILES:
                table.optimize().executeCompaction()

    @_retried
    def mend_times(self, name: str, column: str) -> None:
        """Write files anew whose times only Spark can read: older releases wrote them as INT96.

        Other readers take INT96 for nanoseconds, and those hold only the years 1678 to 2261.
        """
        table = DeltaTable.forPath(self.spark, self.path(name))
        beyond = ~F.col(column).between(F.lit("1678-01-01").cast("timestamp"), F.lit("2262-01-01").cast("timestamp"))
        held = table.toDF().where(beyond).select("_metadata.file_path").distinct().collect()
        wanted = pa.schema([schemas.TABLES[name].field(column)])
        columns = read_columns([unquote(path) for (path,) in held], wanted, "no Parquet file")
        if any(one.types.get(column) == INT96 for one in columns):
            with self._only_writer(name):
                table.update(beyond, {column: F.col(column)})

    def vacuum(self, name: str, hours: float) -> None:
        """Remove the table's own files that no version of it younger than `hours` needs."""
        if delta_log.list_commits(self.path(name)):
            DeltaTable.forPath(self.spark, self.path(name)).vacuum(hours)

    def delta_version(self, name: str) -> int:
        """Delta's number of the table as it is now; -1 where there is no table."""
        return max(delta_log.list_commits(self.path(name)), default=-1)

    def _merge(self, name: str, rows: DataFrame, key: Sequence[str]) -> DeltaMergeBuilder:
        return self._joined(name, conform(rows, schemas.TABLES[name]), key)

    def _joined(self, name: str, rows: DataFrame, key: Sequence[str]) -> DeltaMergeBuilder:
        same_key = " AND ".join(f"old.`{column}` <=> new.`{column}`" for column in key)
        return self._delta(name).alias("old").merge(rows.alias("new"), same_key)

    def _delta(self, name: str) -> DeltaTable:
        """The table, created where it is missing."""
        self.create(name)
        return DeltaTable.forPath(self.spark, self.path(name))

    def create(self, name: str) -> None:
        """Make the table, empty, where it is missing, so that its comments and constraints stand.

        One that an older release made gets the columns that came since.
        """
        path, partition = self.path(name), schemas.PARTITIONED_BY.get(name)
        if not delta_log.list_commits(path):
            with self._only_writer(name):
                if files.is_local(self.root):
                    delta_log.create(path, schemas.TABLES[name], partition)
                else:
                    empty = self._empty(name).write.format("delta").mode("ignore")
                    (empty.partitionBy(partition) if partition else empty).save(path)
        if set(schemas.TABLES[name].names) - set(self._columns(name)):
            with self._only_writer(name):
                self._empty(name).write.format("delta").mode("append").option("mergeSchema", True).save(path)

    def _columns(self, name: str) -> list[str]:
        if files.is_local(self.root):
            return [field.name for field in delta_log.open_table(self.path(name)).schema().fields]
        return DeltaTable.forPath(self.spark, self.path(name)).toDF().columns

    def _empty(self, name: str) -> DataFrame:
        return self.spark.createDataFrame([], to_spark_schema(schemas.TABLES[name]))

    def _without_spark(self, alone: bool) -> bool:
        """Whether delta-rs may commit in Spark's place: milliseconds for what takes Spark a job and a snapshot."""
        return alone and files.is_local(self.root)

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
