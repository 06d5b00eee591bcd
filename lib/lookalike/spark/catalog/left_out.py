"""Images that a complete manifest leaves out: they left the catalog, as if a row said `deleted`."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lookalike.config import IngestSettings
from lookalike.errors import ManifestInvalid
from lookalike.selection import Selection
from lookalike.spark.category_conditions import is_selected


def find_left_out(manifest: DataFrame, ledger: DataFrame, selection: Selection) -> DataFrame:
    """Manifest rows that delete those images of the selected categories that the ledger has and the manifest lacks.

    An image that moved to a category that is not selected is in the manifest, and is not left out.
    """
    there = ledger.where(is_selected(selection)).where("occurrence = 0 AND NOT deleted AND image_id IS NOT NULL")
    gone = there.join(manifest.select("image_id").distinct(), "image_id", "left_anti")
    said = {"deleted": F.lit(True), "content_hash": F.lit(None).cast("string")}
    return gone.select(
        [
            said.get(field.name, F.col(field.name) if field.name in gone.columns else F.lit(None).cast(field.dataType))
            .alias(field.name)
            for field in manifest.schema
        ]
    )  # fmt: skip


def check_left_out(left_out: DataFrame, ledger: DataFrame, selection: Selection, settings: IngestSettings) -> int:
    """How many there are. Raises ManifestInvalid where they are more than the settings allow, as of a broken export."""
    count = left_out.count()
    known = ledger.where(is_selected(selection)).where("occurrence = 0 AND NOT deleted").count()
    if count > settings.max_left_out * known:
        raise ManifestInvalid(
            f"the manifest leaves out {count:,} of the {known:,} images that the catalog has in the selected "
            f"categories, and may leave out a share of {settings.max_left_out:g}: if they are meant to go, set "
            "ingest.max_left_out=1 for this run; if the manifest has only what changed, leave out --complete"
        )
    return count
