"""Compare models by query photos: the same queries on the same gallery, and how sure each difference is.

The gallery's contents that a model has not embedded yet are embedded and stored, as `embeddings` is by content and
model. The ledger, and what is live, stay as they are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from rich.markup import escape
from rich.table import Table

from lookalike import config, files, schemas
from lookalike.config import DEFAULT_MODEL, ModelSettings
from lookalike.errors import ConfigInvalid, ManifestInvalid, RootUnusable
from lookalike.kernels.evaluation.bootstrap import mean_intervals
from lookalike.spark.catalog.gallery import select_embedded
from lookalike.spark.catalog.manifest_pictures import with_whole_uris
from lookalike.spark.category_conditions import is_selected
from lookalike.spark.contents.embed_pictures import EmbedJob, Pictures, embed_pictures, known_contents
from lookalike.spark.progress import progress_bars
from lookalike.spark.queries.evaluate_queries import (
    Evaluation,
    describe_counts,
    load_or_measure,
    read_answers,
    select_searchable,
)
from lookalike.spark.queries.query_figures import ALL, METRICS, RELEVANT, clusters_of, format_figure, values_of
from lookalike.spark.queries.query_manifest import Queries, read_queries
from lookalike.spark.run import Run, console


@dataclass(frozen=True)
class Candidate:
    """A model to compare: as the user calls it, and the run with its settings."""

    name: str
    run: Run

    @property
    def model_id(self) -> str:
        return self.run.model_id


def compare_models(run: Run, uri: str, models: Sequence[str]) -> None:
    """Measure the answers of each of `models` to the queries at `uri`, and print them beside those of the first.

    Raises ConfigInvalid, ManifestInvalid and RootUnusable.
    """
    if run.given_dim:
        raise ConfigInvalid("the manifest brings embeddings, so there is no model to compare: give one with images")
    candidates = [_candidate(run, name) for name in models]
    repeated = [c.name for i, c in enumerate(candidates) if c.model_id in {other.model_id for other in candidates[:i]}]
    if repeated:
        raise ConfigInvalid(f"--model {repeated[0]}: the same model as another --model; give each once")
    with run.stage("compare_models") as figures:
        queries = read_queries(run, uri)
        if not queries.rows.where("embedding IS NOT NULL").isEmpty():
            raise ManifestInvalid(f"{uri}: some queries bring embeddings, which are of one model: give photos instead")
        images = select_embedded(run.tables.read("images")).where(is_selected(run.selection)).localCheckpoint()
        figures.counts = {f"embedded: {c.name}": _embed_missing(c, images) for c in candidates}
        common = _embedded_by_all(images, run.tables.read("embeddings"), candidates)
        gallery = select_searchable(common).localCheckpoint()
        if gallery.isEmpty():
            raise RootUnusable(f"{run.settings.root} holds no image in the selected categories: run the pipeline first")
        evaluations = [load_or_measure(c.run, queries, gallery) for c in candidates]
        figures.counts["queries"] = queries.count
    _print(run, queries, candidates, evaluations)


def _candidate(run: Run, name: str) -> Candidate:
    model = model_settings(run.settings.model, name)
    other = replace(run, settings=run.settings.model_copy(update={"model": model}))
    return Candidate(name, other)


def model_settings(current: ModelSettings, name: str) -> ModelSettings:
    """The model of a `--model` option: a model.name, with the weights of `current` where it is that; or @FILE.

    `default` is the current model where that is a default model. @FILE is the [model] table of a TOML file with
    settings. Raises ConfigInvalid.
    """
    if name.startswith("@"):
        return config.load(Path(name[1:])).model
    is_current = name == current.name or (name == DEFAULT_MODEL and current.is_default)
    return current if is_current else ModelSettings(name=name)


def _embed_missing(candidate: Candidate, images: DataFrame) -> int:
    """Embed the contents of `images` that the model lacks, and store them; gives how many were."""
    run, model_id = candidate.run, candidate.model_id
    known = known_contents(run.tables.read("embeddings"), model_id)
    one = F.max(F.struct("uri", "image_id")).alias("one")
    lacking = images.groupBy("content_hash").agg(one).join(known, "content_hash", "left_anti")
    rows = with_whole_uris(lacking.select("content_hash", "one.uri", "one.image_id"), run.manifest).localCheckpoint()
    carried = run.manifest.where("content IS NOT NULL").select("image_id", "content").join(rows, "image_id")
    carried = carried.select(F.col("content_hash").alias("key"), "content")
    photos = rows.select(F.col("content_hash").alias("key"), "uri", "content_hash")
    staging = files.join(run.settings.root, "staging", run.run_id, "candidates")
    total, embedded = rows.count(), 0
    try:
        bars = {f"read: {candidate.name}": total, f"embed: {candidate.name}": total}
        with progress_bars(run.console, run.spark.sparkContext, bars) as (count_read, count_embedded):
            pictures = Pictures.by_hash(photos, carried, total, run.settings.embed)
            job = EmbedJob(run.settings, model_id, staging, count_read, count_embedded)
            for chunk in embed_pictures(pictures, known, job):
                new = chunk.embeddings.withColumn("run_id", F.lit(run.run_id))
                run.tables.insert("embeddings", new, schemas.EMBEDDINGS_KEY)
                embedded += new.count()
    finally:
        files.remove(staging)
    return embedded


def _embedded_by_all(images: DataFrame, embeddings: DataFrame, candidates: Sequence[Candidate]) -> DataFrame:
    """Those `images` that all models embedded, so that all search the same gallery."""

    def only(rows: DataFrame, candidate: Candidate) -> DataFrame:
        known = embeddings.where(F.col("model_id") == candidate.model_id).select("content_hash")
        return rows.join(known, "content_hash", "left_semi")

    return reduce(only, candidates, images)


def _print(run: Run, queries: Queries, candidates: Sequence[Candidate], evaluations: Sequence[Evaluation]) -> None:
    """A line for each figure of all queries; for each model after the first also the difference to the first."""
    first, *others = candidates
    table = Table("right is the same", "metric", title=escape(f"{queries.name}, gallery {evaluations[0].gallery}"))
    table.add_column("n", justify="right")
    table.add_column(escape(first.name), justify="right")
    for candidate in others:
        table.add_column(escape(candidate.name), justify="right")
        table.add_column("difference", justify="right")
    figures = [
        {(row["relevant"], row["metric"]): row for row in evaluation.figures if row["grouped_by"] == ALL}
        for evaluation in evaluations
    ]
    answers = [read_answers(run.tables, evaluation) for evaluation in evaluations]
    for relevant in RELEVANT:
        if not all((relevant, METRICS[0]) in figures_of_model for figures_of_model in figures):
            continue
        changes = [
            list(describe_differences(answers[0], other, relevant, run.settings.index.seed)) for other in answers[1:]
        ]
        for i, metric in enumerate(METRICS):
            row = figures[0][relevant, metric]
            cells = [format_figure(row)]
            for figures_of_model, change in zip(figures[1:], changes, strict=True):
                cells += [format_figure(figures_of_model[relevant, metric]), change[i]]
            table.add_row(relevant, metric, f"{row['n']:,}", *cells)
    console().print(table)
    for candidate, evaluation in zip(candidates, evaluations, strict=True):
        said = f"{candidate.name} ({candidate.model_id}): {describe_counts(queries.count, evaluation)}"
        console().print(said, highlight=False, markup=False, soft_wrap=True)


def describe_differences(first: pd.DataFrame, other: pd.DataFrame, relevant: str, seed: int) -> Iterator[str]:
    """For each of METRICS, how much more `other` has, with the interval of paired queries, in words.

    Both answered the same queries, so each query's difference is what is drawn anew, by product.
    """
    sides = [rows[rows["relevant"] == relevant].set_index("query_id", drop=False) for rows in (first, other)]
    both = sides[0].index.intersection(sides[1].index)
    before, after = (side.loc[both] for side in sides)
    change = values_of(after) - values_of(before)
    low, high = mean_intervals(change, clusters_of(before), seed)
    for mean, *ends in zip(change.mean(axis=1), low, high, strict=True):
        interval = "" if np.isnan(ends).any() else f" ({_signed(ends[0])} to {_signed(ends[1])})"
        yield f"{_signed(mean)}{interval}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")
