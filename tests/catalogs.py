"""Small catalogs for tests of whole jobs: pictures, manifests, runs in this process, and what then stands below a root."""

import importlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from PIL import Image

from lookalike import reader, schemas

MANIFEST = pa.schema([*schemas.MANIFEST_REQUIRED, *schemas.MANIFEST_OPTIONAL])

Row = dict[str, Any]


def picture(seed: int, side_px: int = 64) -> bytes:
    """A JPEG of coloured blocks, unlike that of any other seed."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks).resize((side_px, side_px), Image.Resampling.NEAREST).save(file, "JPEG", quality=90)
    return file.getvalue()


def images(category: str, products: int, views: int = 2, seed: int = 0) -> list[Row]:
    """Manifest rows that carry their pictures."""
    return [
        {
            "image_id": f"{category}-{product}-{view}",
            "product_id": f"{category}-{product}",
            "category": category,
            "content": picture(hash((seed, product, view)) % 2**32),
        }
        for product in range(products)
        for view in range(views)
    ]


def embeddings(category: str, products: int, views: int = 2, seed: int = 0, dim: int = 8) -> list[Row]:
    """Manifest rows that bring their embeddings, so that a run needs no model."""
    rng = np.random.default_rng(seed)
    return [
        {
            "image_id": f"{category}-{product}-{view}",
            "product_id": f"{category}-{product}",
            "category": category,
            "embedding": rng.normal(size=dim).astype(np.float32).tolist(),
        }
        for product in range(products)
        for view in range(views)
    ]


def write_manifest(path: Path, rows: Iterable[Row]) -> Path:
    """Parquet of `rows`, with the columns that any of them has."""
    rows = list(rows)
    names = {name for row in rows for name in row}
    schema = pa.schema([field for field in MANIFEST if field.name in names])
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return path


def run(job: str, root: Path, manifest: Path | None, settings: Sequence[str] = ()) -> int:
    """Run a job as its entry point does; gives the exit code."""
    given = [f"root={root}", *([f"manifest={manifest}"] if manifest else []), *settings]
    options = [part for setting in given for part in ("--set", setting)]
    code: int = importlib.import_module(f"jobs.{job}").main(options)
    return code


def table(root: Path, name: str) -> list[Row]:
    """Rows of a table, read without Spark."""
    return DeltaTable(root / "tables" / name).to_pyarrow_table().to_pylist()


def versions(root: Path) -> dict[str, int]:
    """Delta version of every table but `runs`, which grows with every run."""
    folders = (path for path in (root / "tables").iterdir() if path.name != "runs")
    return {path.name: DeltaTable(path).version() for path in folders}


def answers(root: Path) -> dict[str, Any]:
    """What a service gets: every live version, with the similar items of each of its products."""
    ledger = [row for row in table(root, "images") if row["status"] in ("embedded", "reused") and not row["deleted"]]
    found: dict[str, Any] = {}
    for live in table(root, "publications"):
        catalog = reader.open(str(root), live["category"], live["version"], cache=root.parent / "cache")
        products = sorted({row["product_id"] for row in ledger if row["category"] == live["category"]})
        found[live["category"]] = (live["version"], {product: catalog.similar(product, 5) for product in products})
    return found
