"""Whether a category that changed keeps its quantizer: until drift, measured against its training, says retrain.

Drift shows in the quantization error of a random sample, before anything is built; and in knn_recall@10, searched as
when the quantizer was trained, once the index is filled.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lookalike import FORMAT_VERSION
from lookalike.config import IndexSettings
from lookalike.errors import ShardDamaged
from lookalike.kernels.index import shards
from lookalike.kernels.index.build import measure_quantization_error, train_index
from lookalike.kernels.index.search import SearchSpec
from lookalike.kernels.index.shards import Float32s
from lookalike.kernels.index.spec import IndexSpec
from lookalike.spark.category_conditions import is_among
from lookalike.spark.tables import VersionKey, version_key_of


@dataclass(frozen=True)
class Former:
    """An index that an earlier version of a category has, trained for the same spec."""

    row: Mapping[str, Any]  # of `shards`

    @property
    def search(self) -> SearchSpec:
        """How the version that trained it is searched."""
        return SearchSpec(self.row["trained_nprobe"], self.row["trained_candidates"])

    @property
    def training(self) -> dict[str, Any]:
        """The columns of `shards` that go with the quantizer."""
        return {name: self.row[name] for name in TRAINING}


TRAINING = ("trained_version", "trained_error", "trained_nprobe", "trained_candidates", "trained_recall")


def find_formers(
    shards: DataFrame, live: Collection[VersionKey], model_id: str, wanted: Collection[tuple[str, str, int]]
) -> dict[str, Former]:
    """By category, its live version's index, or else its latest one, where that suits.

    `shards` are rows of that table, `live` the live versions; `wanted` are categories with the factory string and dim
    of the index that is to be filled.
    """
    usable = (F.col("format_version") == FORMAT_VERSION) & (F.col("shard") == 0) & F.col("trained_version").isNotNull()
    trained = shards.where(usable & (F.col("model_id") == model_id))
    rows = [
        row
        for row in trained.where(is_among({category for category, _, _ in wanted})).collect()
        if (row["category"], row["factory"], row["dim"]) in wanted
    ]
    rows.sort(key=lambda row: (version_key_of(row) in live, row["run_id"]))
    return {row["category"]: Former(row.asDict()) for row in rows}  # the last of each


@dataclass(frozen=True)
class Outcome:
    """How a category came by its trained index."""

    reused: bool
    error: float  # mean squared quantization error of the sample, under the index taken
    former_error: float | None  # and under the former one
    damage: str | None  # why the former one could not be read


def train_or_reuse(
    root: str, spec: IndexSpec, former: Former | None, sample: Float32s, settings: IndexSettings
) -> tuple[Any, Outcome]:
    """An empty index: `former` where that still suits the random `sample` (n, dim), else one trained on it."""
    kept, damage, former_error = None, None, None
    if former:
        try:
            kept = shards.read_trained_index(root, former.row)
            former_error = measure_quantization_error(kept, sample)
        except ShardDamaged as damaged:
            damage = str(damaged)
    if former and former_error is not None and not _grew(former, former_error, settings):
        return kept, Outcome(True, former_error, former_error, damage)
    trained = train_index(spec, sample, settings.seed)
    return trained, Outcome(False, measure_quantization_error(trained, sample), former_error, damage)


def _grew(former: Former, error: float, settings: IndexSettings) -> bool:
    return error > float(former.row["trained_error"]) * (1 + settings.retrain_error_growth)


def has_fallen(former: Former, recall: float | None, settings: IndexSettings) -> bool:
    """Whether `recall`, measured with `former.search` on an index filled anew, is too far below what it was."""
    before = former.row["trained_recall"]
    return recall is not None and before is not None and recall < before - settings.retrain_recall_drop


def describe_decision(former: Former | None, outcome: Outcome, recall: float | None, settings: IndexSettings) -> str:
    """What was decided for a category, with the figures. `recall` is as `fell` takes it, of a quantizer kept."""
    if former is None:
        return f"trained: no earlier index of this kind; quantization error {outcome.error:.4g}"
    version = former.row["trained_version"]
    if outcome.damage or outcome.former_error is None:
        return f"retrained: the index of version {former.row['version']} can't be reused: {outcome.damage}"
    then = former.row["trained_error"]
    figures = (
        f"quantization error {outcome.former_error:.4g}, {then:.4g} when version {version} trained it"
        f" (retrained above {then * (1 + settings.retrain_error_growth):.4g})"
    )
    if outcome.reused and recall is not None:
        before = former.row["trained_recall"]
        figures += (
            f"; knn_recall@10 {recall:.4f} with nprobe {former.search.nprobe}, {before:.4f} then"
            f" (retrained below {before - settings.retrain_recall_drop:.4f})"
        )
    kept = outcome.reused and not has_fallen(former, recall, settings)
    return f"{'reused' if kept else 'retrained'}: {figures}"
