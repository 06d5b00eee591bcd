"""Pictures -> their content hashes and embeddings, in chunks that are each whole before the next one begins.

A chunk's pictures are read into files; each content that has no embedding yet is embedded once; what became of each
picture is written last. The bytes are removed when the caller asks for the next chunk. So a caller that stores each
chunk as it comes loses one at most when it is killed, and no more than one chunk's bytes stand on the disk at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lookalike import files, schemas
from lookalike.config import EmbedSettings, Settings
from lookalike.spark.contents.embedding_udf import embedding_udf
from lookalike.spark.contents.read_pictures import read_pictures
from lookalike.spark.progress import Count
from lookalike.spark.tables import to_spark_schema, write_and_read

_CONTENT = ("content_hash", "width", "height")

OUTCOMES = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("content_hash", pa.string()),
        schemas.EMBEDDINGS.field("width"),
        schemas.EMBEDDINGS.field("height"),
        pa.field("reason", pa.string()),
        pa.field("is_new", pa.bool_()),
    ]
)
"""What became of a picture: its content, or the reason for none; and whether that content was embedded just now."""


@dataclass(frozen=True)
class Pictures:
    """Pictures to embed, each under a key that its caller chooses.

    `rows` (key, uri, content_hash, chunk): one for each. Of a picture by uri, content_hash is what its bytes must have,
    or null. A picture without uri carries its bytes; content_hash is theirs. `carried` (key, content) has these bytes;
    rows of it with other keys, or with bytes of another hash, are left out. `chunk` counts from 0 to `chunks`, and a
    chunk should have `embed.commit_images` pictures at most.
    """

    rows: DataFrame
    carried: DataFrame
    total: int
    chunks: int

    @classmethod
    def by_hash(cls, rows: DataFrame, carried: DataFrame, total: int, settings: EmbedSettings) -> "Pictures":
        """Of `rows` without `chunk`, in chunks by the hash of their keys."""
        chunks = max(1, -(-total // settings.commit_images))
        return cls(
            rows.withColumn("chunk", F.pmod(F.xxhash64("key"), F.lit(chunks)).cast("int")), carried, total, chunks
        )


@dataclass(frozen=True)
class EmbedJob:
    """How pictures are embedded: below `staging`, a folder of this job alone, which its caller removes."""

    settings: Settings
    model_id: str
    staging: str
    count_read: Count
    count_embedded: Count


@dataclass(frozen=True)
class Chunk:
    """What became of the pictures of a chunk, in files below the job's staging folder.

    `outcomes`: OUTCOMES, a row for each. `embeddings` (content_hash, model_id, embedding, width, height): the contents
    that were embedded just now.
    """

    outcomes: DataFrame
    embeddings: DataFrame


def task_count(pictures: int, cores: int, settings: EmbedSettings) -> int:
    """Tasks for so many pictures: of `task_images` at most, and several per core as long as each fills a batch.

    Tasks are not equally much work, and cores not equally fast; the last ones even that out.
    """
    return max(1, -(-pictures // settings.task_images), min(4 * cores, pictures // settings.batch_images))


def known_contents(embeddings: DataFrame, model_id: str) -> DataFrame:
    """(content_hash, width, height) of the contents that have an embedding of this model."""
    return embeddings.where(F.col("model_id") == model_id).select(*_CONTENT)


def embed_pictures(pictures: Pictures, known: DataFrame, job: EmbedJob) -> Iterator[Chunk]:
    """Embed `pictures` chunk by chunk, but for contents that are `known` (content_hash, width, height) already."""
    chunks = pictures.chunks
    if chunks > 1:  # so that no chunk looks again through all that the pictures come from
        pictures = _by_chunk(pictures, job.staging)
    met = known.select(*_CONTENT, F.lit(None).cast("string").alias("reason"))
    for number in range(chunks):
        part = replace(
            pictures,
            rows=pictures.rows.where(F.col("chunk") == number).drop("chunk"),
            carried=pictures.carried.where(F.col("chunk") == number).drop("chunk") if chunks > 1 else pictures.carried,
            total=-(-pictures.total // chunks),
        )
        contents, outcomes = _embed_chunk(part, met, number, job)
        yield Chunk(outcomes, contents.where("embedding IS NOT NULL").drop("reason"))
        files.remove(files.join(job.staging, "pictures"))
        met = met.unionByName(contents.select(*_CONTENT, "reason"))  # what can't be decoded is not tried twice either


def embed_apart(pictures: Pictures, embeddings: DataFrame, job: EmbedJob) -> DataFrame:
    """(key, content_hash, embedding, reason) of each picture, none of which is stored: from the job's staging folder.

    `embeddings`: the table; contents that have one of the job's model there are not embedded again.
    """
    ours = embeddings.where(F.col("model_id") == job.model_id)
    chunks = list(embed_pictures(pictures, ours, job))
    outcomes, fresh = chunks[0].outcomes, chunks[0].embeddings
    for chunk in chunks[1:]:
        outcomes, fresh = outcomes.unionByName(chunk.outcomes), fresh.unionByName(chunk.embeddings)
    names = ("content_hash", "embedding")
    met = ours.join(outcomes.select("content_hash"), "content_hash", "left_semi")
    vectors = met.select(*names).unionByName(fresh.select(*names))
    return outcomes.join(vectors, "content_hash", "left").select("key", *names, "reason")


def _by_chunk(pictures: Pictures, staging: str) -> Pictures:
    """The same, from files of which each chunk reads its own; both of its DataFrames have a `chunk` now."""
    chunk_of = pictures.rows.where("uri IS NULL").select("key", "chunk")
    carried = pictures.carried.join(chunk_of, "key", "inner")

    def written(rows: DataFrame, name: str) -> DataFrame:
        path = files.join(staging, name)
        rows.write.partitionBy("chunk").option("compression", "none").parquet(path)
        return rows.sparkSession.read.schema(rows.schema).parquet(path)

    return replace(pictures, rows=written(pictures.rows, "rows"), carried=written(carried, "carried"))


def _embed_chunk(pictures: Pictures, known: DataFrame, number: int, job: EmbedJob) -> tuple[DataFrame, DataFrame]:
    """(content_hash, model_id, embedding, width, height, reason) of what was embedded, and OUTCOMES of all pictures."""
    cores = pictures.rows.sparkSession.sparkContext.defaultParallelism
    tasks = task_count(pictures.total, cores, job.settings.embed)
    by_uri = pictures.rows.where("uri IS NOT NULL")
    path = files.join(job.staging, "pictures")
    read = read_pictures(by_uri, job.settings.ingest, tasks, path, job.count_read)
    no_reason = F.lit(None).cast("string").alias("reason")
    hashes = read.select("key", "content_hash", "reason").unionByName(
        pictures.rows.where("uri IS NULL").select("key", "content_hash", no_reason)
    )
    sound = hashes.where("reason IS NULL")
    # Only few and small rows are sent around: neither the bytes nor `known` are shuffled to meet them.
    met = known.join(F.broadcast(sound.select("content_hash").distinct()), "content_hash", "left_semi")
    met = met.persist(StorageLevel.DISK_ONLY)
    try:
        todo = sound.groupBy("content_hash").agg(F.min("key").alias("key")).join(met, "content_hash", "left_anti")
        todo = todo.persist(StorageLevel.DISK_ONLY)
        contents = _embed(_bytes_of(todo, read, pictures.carried, tasks), number, job)
        outcomes = _outcomes(hashes, contents, met)
        return contents, write_and_read(outcomes, files.join(job.staging, "outcomes", str(number)))
    finally:
        todo.unpersist()
        met.unpersist()


def _bytes_of(todo: DataFrame, read: DataFrame, carried: DataFrame, tasks: int) -> DataFrame:
    """(content_hash, content) of `todo` (content_hash, key), spread over `tasks`."""
    ours = read.select("key", "content").join(F.broadcast(todo), "key", "inner").select("content_hash", "content")
    theirs = carried.join(F.broadcast(todo), "key", "inner").where(F.sha2("content", 256) == F.col("content_hash"))
    # A key may stand there twice with the same bytes.
    theirs = theirs.select("content_hash", "content").repartition(tasks, "content_hash")
    return ours.repartition(tasks).unionByName(theirs.dropDuplicates(["content_hash"]))


def _embed(pictures: DataFrame, number: int, job: EmbedJob) -> DataFrame:
    udf = embedding_udf(job.settings, job.model_id, job.count_embedded)
    rows = pictures.select("content_hash", F.lit(job.model_id).alias("model_id"), udf("content").alias("embedded"))
    rows = rows.select("content_hash", "model_id", "embedded.*")
    return write_and_read(rows, files.join(job.staging, "contents", str(number)))


def _outcomes(hashes: DataFrame, contents: DataFrame, met: DataFrame) -> DataFrame:
    """OUTCOMES of `hashes` (key, content_hash, reason). A picture whose carried bytes are gone by now has none."""
    fresh = contents.select(*_CONTENT, "reason", F.col("reason").isNull().alias("is_new"))
    results = fresh.unionByName(met.withColumn("is_new", F.lit(False)))
    results = F.broadcast(results.withColumnRenamed("reason", "of_content"))
    rows = hashes.join(results, "content_hash", "left").where("reason IS NOT NULL OR is_new IS NOT NULL")
    rows = rows.withColumn("reason", F.coalesce("reason", "of_content"))
    rows = rows.withColumn("is_new", F.coalesce("is_new", F.lit(False)))
    return rows.select(*to_spark_schema(OUTCOMES).names)
