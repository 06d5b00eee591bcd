"""Small catalogs for tests of whole jobs: pictures, manifests, runs in this process, and what stands below a root."""

import contextlib
import importlib
import io
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
            "content": picture(zlib.crc32(f"{seed} {category} {product} {view}".encode())),
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


@dataclass(frozen=True)
class Ended:
    """How a job ended: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one error on stderr, below any progress bars."""
        assert self.err.count("error: ") == 1, self.err
        assert "Traceback" not in self.err, self.err
        assert "\tat " not in self.err, self.err
        return self.err.partition("error: ")[2].rstrip()


def run(
    job: str, root: Path | str, manifest: Path | None, settings: Sequence[str] = (), flags: Sequence[str] = ()
) -> Ended:
    """Run a job in this process, as its entry point does; `flags` are options that are no settings."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = importlib.import_module(f"jobs.{job}").main([*options(root, manifest, settings), *flags])
    return Ended(code, out.getvalue(), err.getvalue())


def options(root: Path | str, manifest: Path | None, settings: Sequence[str] = ()) -> list[str]:
    """Command line of a job."""
    given = [f"root={root}", *([f"manifest={manifest}"] if manifest else []), *settings]
    return [part for setting in given for part in ("--set", setting)]


def table(root: Path, name: str) -> list[Row]:
    """Rows of a table, read without Spark."""
    return DeltaTable(root / "tables" / name).to_pyarrow_table().to_pylist()


def live(root: Path) -> dict[str, str]:
    """The live version of each category."""
    return {row["category"]: row["version"] for row in table(root, "publications")}


def versions(root: Path) -> dict[str, int]:
    """Delta version of every table but `runs`, which grows with every run."""
    folders = (path for path in (root / "tables").iterdir() if path.name != "runs")
    return {path.name: DeltaTable(path).version() for path in folders}


def answers(root: Path) -> dict[str, Any]:
    """What a service gets: every live version, with the similar items of each of its products."""
    found: dict[str, Any] = {}
    for live in table(root, "publications"):
        category, version = live["category"], live["version"]
        catalog = reader.open(str(root), category, version, cache=root.parent / "cache")
        shards = [row for row in table(root, "shards") if (row["category"], row["version"]) == (category, version)]
        products = {product for shard in shards for product in _products(root, shard)}
        found[category] = (version, {product: catalog.similar(product, 5) for product in sorted(products)})
    return found


def _products(root: Path, shard: Row) -> list[str]:
    with pa.ipc.open_file(root / shard["vectors_path"]) as file:
        return file.read_all()["product_id"].slice(shard["first_row"], shard["ntotal"]).to_pylist()


def last_run(root: Path) -> dict[str, Row]:
    """What the last run counted, by stage."""
    rows = sorted(table(root, "runs"), key=lambda row: row["started_at"])
    return {row["stage"]: dict(row["counts"]) for row in rows if row["run_id"] == rows[-1]["run_id"]}
