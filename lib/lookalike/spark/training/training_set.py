"""The training set: pictures of the catalog with their labels, and triplets of a click log, as files for a training."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from lookalike import files, reasons, schemas
from lookalike.errors import TrainingImpossible
from lookalike.formats import reason_counts
from lookalike.spark.catalog.manifest_pictures import with_content
from lookalike.spark.category_conditions import is_selected
from lookalike.spark.contents.embed_pictures import task_count
from lookalike.spark.progress import progress_bar
from lookalike.spark.run import Run
from lookalike.spark.tables import conform, write_and_read
from lookalike.spark.training.clicks import ClickCounts, read_clicks, write_triplets
from lookalike.spark.training.stored_pictures import store_pictures
from lookalike.spark.training.training_rows import OWN_LABELS, attach_splits, judge_images, number_labels

if TYPE_CHECKING:  # its module loads torch, of which the driver has no need
    from lookalike.kernels.models.networks import Preprocessing

_NAMED = 50  # attributes named in an error


@dataclass(frozen=True)
class TrainingCounts:
    """Of `rows` in the ledger `pictures` are in the set and `skipped`, by reason, are not: together all rows."""

    rows: int
    pictures: Mapping[str, int]  # by split
    products: Mapping[str, int]  # by split
    classes: Mapping[str, int]  # by kind of label, those in training: their numbers are below this
    skipped: Mapping[str, int]
    clicks: ClickCounts | None = None


def write_training_set(run: Run, preprocessing: "Preprocessing", folder: str) -> TrainingCounts:
    """Write `pictures`, and with a click log `queries` and `triplets`, as Parquet below `folder`, a URI.

    By `run.settings.fine_tune`, of what the run's selection and manifest have and its model embedded.
    `preprocessing` is the model's with the `size_px` to store. Raises TrainingImpossible, ClicksInvalid.
    """
    if run.given_dim:
        raise TrainingImpossible(
            f"{run.settings.manifest}: the manifest brings embeddings, and a training needs pictures: give one with "
            "uri or content"
        )
    log = read_clicks(run)
    with run.stage("training_set") as figures:
        staging = files.join(folder, "staging")
        for name in ("staging", "pictures", "queries", "triplets"):  # of another run
            files.remove(files.join(folder, name))
        try:
            spec = run.settings.fine_tune
            images = run.tables.read("images").where(is_selected(run.selection))
            judged = attach_splits(judge_images(images, run.manifest, run.model_id, spec), spec)
            judged = write_and_read(judged, files.join(staging, "judged"))
            counts = _write_pictures(run, judged, preprocessing, folder)
            figures.counts = {"rows": counts.rows, **counts.pictures, **counts.skipped}
            figures.images = sum(counts.pictures.values())
            if log is not None:
                clicks = write_triplets(run, log, judged, preprocessing, folder)
                counts = replace(counts, clicks=clicks)
        finally:
            files.remove(staging)
    return counts


def _write_pictures(run: Run, judged: DataFrame, preprocessing: "Preprocessing", folder: str) -> TrainingCounts:
    chosen = judged.where("reason IS NULL")
    skipped = _by(judged, "reason")
    asked = skipped.pop(None, 0)
    _check(run, chosen, skipped)
    labels, classes = number_labels(chosen)
    rows = chosen.drop("labels", "reason").join(labels, "image_id")
    tasks = task_count(asked, run.spark.sparkContext.defaultParallelism, run.settings.embed)
    with progress_bar(run.console, run.spark.sparkContext, "training set", asked) as count:
        images = with_content(rows, run.manifest).repartition(tasks, "content_hash")
        stored = store_pictures(images, preprocessing, run.settings, count)
        stored = stored.withColumn("split", F.when(F.col("reason").isNull(), F.col("split")))
        path = files.join(folder, "pictures")
        conform(stored, schemas.TRAINING_PICTURES).write.parquet(path)
    kept = run.spark.read.parquet(path).select("image_id", "product_id", "split", "reason")
    unread = _by(kept, "reason")
    stored_count = unread.pop(None, 0)
    if gone := asked - stored_count - sum(unread.values()):
        unread[reasons.GONE.text] = gone
    skipped |= unread
    if unread:
        _check(run, chosen.join(kept.where("reason IS NULL"), "image_id", "left_semi"), skipped)
    sizes = F.count("*").alias("pictures"), F.count_distinct("product_id").alias("products")
    sides = kept.where("reason IS NULL").groupBy("split").agg(*sizes).collect()
    return TrainingCounts(
        rows=stored_count + sum(skipped.values()),
        pictures={side["split"]: side["pictures"] for side in sides},
        products={side["split"]: side["products"] for side in sides},
        classes=classes,
        skipped=skipped,
    )


def _check(run: Run, chosen: DataFrame, skipped: Mapping[str, int]) -> None:
    """Raise TrainingImpossible where these pictures, with `labels` and `split`, are no training set."""
    spec = run.settings.fine_tune
    sides, by_kind = _by(chosen, "split"), _count_classes(chosen)
    left_out = reason_counts(sorted(skipped.items())) or "none"
    if not sides and reasons.NOT_EMBEDDED.text in skipped:
        raise TrainingImpossible(f"no picture can be used, left out are: {left_out}; run the pipeline first")
    about = f"{sum(sides.values()):,} pictures can be used, left out are: {left_out}"
    for kind in spec.labels:
        if kind not in by_kind:
            raise TrainingImpossible(f"no picture has the label {kind}{_instead(run, kind)} ({about})")
        if by_kind[kind]["classes"] < 2:
            raise TrainingImpossible(
                f"all pictures are of one {kind}, so there is nothing to tell apart: set fine_tune.labels to what "
                f"differs ({about})"
            )
        if by_kind[kind]["pairs"] < 2:
            raise TrainingImpossible(
                f"not two classes of {kind} have two pictures in training, so there is nothing to learn of it: leave "
                f"it out of fine_tune.labels, or give more pictures ({about})"
            )
    if "validation" not in sides:
        raise TrainingImpossible(
            f"nothing falls to the validation: raise fine_tune.validation_share={spec.validation_share:g}, or give "
            f"more products ({about})"
        )
    if not any(row["held_out"] for row in by_kind.values()):
        raise TrainingImpossible(
            "no two pictures of the validation have a label in common, so nothing would tell whether training helps: "
            f"raise fine_tune.validation_share={spec.validation_share:g}, or give more pictures ({about})"
        )
    first = spec.labels[0]
    if (pairs := by_kind[first]["pairs"]) < spec.classes_per_batch:
        raise TrainingImpossible(
            f"{pairs} classes of {first} have two pictures in training, a batch needs {spec.classes_per_batch}: give "
            "more pictures of each, set fine_tune.labels to a coarser one, or lower fine_tune.classes_per_batch "
            f"({about})"
        )


def _count_classes(chosen: DataFrame) -> dict[str, Row]:
    """By kind of label: `classes`; how many have two pictures in training: `pairs`; in validation: `held_out`."""
    each = chosen.select("split", F.explode("labels").alias("kind", "value"))
    pictures = (F.count_if(F.col("split") == side).alias(side) for side in ("train", "validation"))
    classes = each.groupBy("kind", "value").agg(*pictures).groupBy("kind")
    pairs = (F.count_if(F.col(side) > 1).alias(name) for side, name in (("train", "pairs"), ("validation", "held_out")))
    return {row["kind"]: row for row in classes.agg(F.count("*").alias("classes"), *pairs).collect()}


def _instead(run: Run, kind: str) -> str:
    """What the label could be instead, in words."""
    rows = run.tables.read("images").where(is_selected(run.selection))
    names = [
        row["key"] for row in rows.select(F.explode("attributes")).select("key").distinct().limit(_NAMED).collect()
    ]
    known = [*OWN_LABELS, *sorted(names)]
    close = difflib.get_close_matches(kind, known, n=1)
    return f": did you mean {close[0]}?" if close else f": set fine_tune.labels to some of {', '.join(known)}"


def _by(rows: DataFrame, column: str) -> dict[Any, int]:
    return {row[column]: row["count"] for row in rows.groupBy(column).count().collect()}
