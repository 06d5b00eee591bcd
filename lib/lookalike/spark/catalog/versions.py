"""Candidate versions: what a version is, how it gets its name, and which ones a run has still to build or publish."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lookalike import FORMAT_VERSION, schemas
from lookalike.config import Settings
from lookalike.spark.catalog.audit import read_live, read_live_moves
from lookalike.spark.catalog.gallery import fingerprint, select_live
from lookalike.spark.catalog.placeholders import mark_unavailable
from lookalike.spark.category_conditions import is_selected
from lookalike.spark.run import Run
from lookalike.spark.tables import Tables, VersionKey, select_versions, version_key_of

_NUMBER = "-[0-9]+$"  # at the end of a version


@dataclass(frozen=True)
class Version:
    """A candidate version of a category, and what was live when it was found: nothing may go live in between."""

    category: str
    version: str
    images: int
    several_products: bool
    live_version: str | None = None
    live_run_id: str | None = None

    @property
    def key(self) -> VersionKey:
        return self.category, self.version


def name_candidates(images: DataFrame, model_id: str, settings: Settings) -> DataFrame:
    """(category, version, images, several_products) of every category that has an image.

    `version` is a fingerprint of all that decides the published files and rows, so an unchanged category keeps it.
    """
    hashed = F.xxhash64("image_id", "product_id", "content_hash", "available")
    product = F.xxhash64("product_id")
    return (
        select_live(images, model_id)
        .groupBy("category")
        .agg(
            fingerprint(hashed, F.lit(_settings_fingerprint(model_id, settings))).alias("version"),
            F.count("*").alias("images"),
            (F.min(product) < F.max(product)).alias("several_products"),
        )
    )


def find_unpublished(run: Run, force: bool = False) -> list[Version]:
    """Candidate versions of the selection that are not live, by category: what the stages after embed have to work on.

    A version that was rolled back from is none, unless `force`.
    """
    rows = mark_unavailable(run, run.tables.read("images").where(is_selected(run.selection)))
    moves = read_live_moves(run.tables)
    candidates = number_versions(
        run.tables, name_candidates(rows, run.model_id, run.settings), moves, ahead=int(run.selection.full)
    )
    held = set() if force else find_rolled_back(moves)
    return [v for v in candidates if v.version != v.live_version and v.key not in held]


def number_versions(tables: Tables, candidates: DataFrame, moves: DataFrame, ahead: int = 0) -> list[Version]:
    """`candidates` by category, with the number of its full builds, and `ahead`, behind the version: `-1`.

    So a full build of what is live is another version. The number is that of the highest that ever was live and stays
    with the category: later runs find unchanged what is, and what was rolled back from is not published again.
    """
    built: dict[str, int] = {}
    for category, version in moves.where(F.col("version").rlike(_NUMBER)).select("category", "version").collect():
        built[category] = max(built.get(category, 0), int(version.rpartition("-")[2]))
    now = {row["category"]: (row["version"], row["run_id"]) for row in read_live(tables).collect()}
    versions = []
    for row in sorted(candidates.collect()):
        category = row["category"]
        full = built.get(category, 0) + ahead
        name = f"{row['version']}-{full}" if full else row["version"]
        versions.append(Version(category, name, row["images"], row["several_products"], *now.get(category, ())))
    return versions


def find_rolled_back(moves: DataFrame) -> set[VersionKey]:
    """Versions that were rolled back from, and not live since: they wait for a force."""
    left = moves.where("action = 'rollback' AND replaced_version IS NOT NULL")
    left_at: dict[VersionKey, datetime] = {}
    for category, version, at in left.select("category", "replaced_version", "at").collect():
        left_at[category, version] = max(at, left_at.get((category, version), at))
    came = select_versions(moves, left_at).select("category", "version", "at").collect()
    return left_at.keys() - {version_key_of(row) for row in came if row["at"] > left_at[version_key_of(row)]}


def find_missing(tables: Tables, table: str, versions: Collection[Version]) -> list[Version]:
    """Those of `versions` that have no row in `table`: what a stage has still to do, also after a crash."""
    lacking = set(tables.lacking(table, schemas.VERSION_KEY, [v.key for v in versions]))
    return [v for v in versions if v.key in lacking]


def _settings_fingerprint(model_id: str, settings: Settings) -> str:
    # Placeholders that are left out show in the images' availability: so the setting changes only what it concerns.
    similar_items = settings.similar_items.model_dump_json(exclude={"leave_out_placeholders"})
    parts = [str(FORMAT_VERSION), model_id, settings.index.model_dump_json(), similar_items]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
