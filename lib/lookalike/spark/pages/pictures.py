"""Pictures for the report: a few, read where the catalog's images are."""

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pyspark.sql import Row
from pyspark.sql import functions as F

from lookalike import fetch
from lookalike.config import IngestSettings
from lookalike.spark.run import Run
from lookalike.spark.secrets import WITHHELD
from lookalike.spark.tables import Tables

_READ_THREADS = 8


def read_images(tables: Tables, image_ids: Collection[str]) -> dict[str, Row]:
    """Rows of the ledger, of those that it has."""
    rows = tables.read("images").where("occurrence = 0").where(F.col("image_id").isin(*image_ids))
    return {row["image_id"]: row for row in rows.collect()}


def read_contents(run: Run, images: Mapping[str, Row]) -> dict[str, bytes]:
    """Bytes by image_id, of those that can still be read."""
    contents: dict[str, bytes] = {}
    by_uri = {image_id: row["uri"] for image_id, row in images.items() if row["uri"] and WITHHELD not in row["uri"]}
    others = [image_id for image_id in images if image_id not in by_uri]
    if others and run.settings.manifest:
        manifest = run.manifest.where(F.col("image_id").isin(*others))
        for row in manifest.select("image_id", "uri", "content").collect():
            if row["content"] is not None:
                contents[row["image_id"]] = bytes(row["content"])
            elif row["uri"]:
                by_uri[row["image_id"]] = row["uri"]
    return contents | fetch_pictures(run.settings.ingest, by_uri)


def fetch_pictures(settings: IngestSettings, uris: Mapping[str, str]) -> dict[str, bytes]:
    """Bytes by key, of those `uris` that can be read."""
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        reading = pool.map(partial(_read, settings), uris.values())
        return {key: content for key, content in zip(uris, reading, strict=True) if content}


def _read(settings: IngestSettings, uri: str) -> bytes | None:
    try:
        return fetch.read_image(uri, settings)
    except Exception:
        # The page shows a placeholder for a picture that is gone since.
        return None
