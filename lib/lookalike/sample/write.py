"""Write the sample catalog: image files, `truth.json`, and last `manifest.parquet`."""

import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lookalike import files, reasons, schemas
from lookalike.sample import catalog, scenes
from lookalike.sample.catalog import Product
from lookalike.sample.damaged import Damaged, damaged
from lookalike.sample.encodings import encoded
from lookalike.sample.views import VIEWS

MANIFEST = "manifest.parquet"
TRUTH = "truth.json"

PIXELS = 560  # side of a cut-out
PRODUCTS_PER_SCENE = 20  # one scene for so many products
PRODUCTS_PER_DUPLICATE = 20  # one product in so many has a second seller, who uses the same pictures
OPTIONAL_VIEWS = ("detail", "light")  # every other product lacks one of them

SCHEMA = pa.schema(
    [
        *schemas.MANIFEST_REQUIRED,
        *(schemas.MANIFEST_OPTIONAL.field(n) for n in ("uri", "title", "attributes", "available")),
    ]
)


@dataclass(frozen=True)
class Entry:
    """One manifest row, and what is true of it."""

    image_id: str
    product_id: str
    category: str
    path: str | None  # below the folder
    kind: str
    title: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    available: bool = True
    encoding: str = ""
    problem: str = ""
    same_bytes_as: str = ""
    shows: tuple[str, ...] = ()


def make_sample(folder: Path, products: int = 240, seed: int = 0) -> Path:
    """Make a sample catalog of `products` products below `folder`; returns the path of its `manifest.parquet`.

    The same seed gives the same bytes with the same Pillow. `manifest.parquet` is written last, so that a folder which
    has one is complete. `truth.json` says for each image its product, kind and encoding, which images share bytes,
    which rows must be rejected and why, and which products a scene shows.
    """
    folder = folder.expanduser().resolve()
    (folder / MANIFEST).unlink(missing_ok=True)
    made = catalog.products(products, seed)
    # Pillow and numpy let go of the interpreter lock, so threads draw side by side.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        per_product = list(pool.map(lambda numbered: _product(folder, seed, *numbered), enumerate(made)))
        shown = list(
            pool.map(lambda number: _scene(folder, seed, made, number), range(max(products // PRODUCTS_PER_SCENE, 1)))
        )
    entries = [entry for group in per_product for entry in group] + shown
    entries += [copy for group in per_product[::PRODUCTS_PER_DUPLICATE] for copy in _second_seller(folder, group)]
    entries += [_damaged(folder, bad) for bad in damaged(np.random.default_rng((seed, 1)))]
    entries.append(_twice(entries[0]))
    with files.write_atomically(str(folder / TRUTH)) as path:
        path.write_text(json.dumps(truth(entries, seed), indent=1) + "\n", encoding="utf-8")
    with files.write_atomically(str(folder / MANIFEST)) as path:
        pq.write_table(manifest(folder, entries), path)
    return folder / MANIFEST


def _product(folder: Path, seed: int, number: int, product: Product) -> list[Entry]:
    """Draw and write one product's pictures."""
    rng = np.random.default_rng((seed, 2, number))
    cut = product.draw(PIXELS, rng)
    left_out = OPTIONAL_VIEWS[number // 2 % 2] if number % 2 else ""
    entries = []
    for place, (kind, view) in enumerate(VIEWS.items()):
        if kind == left_out:
            continue
        picture = view(cut, product.kind.stands, rng)
        content, suffix, encoding = encoded(picture, cut, number * len(VIEWS) + place, rng)
        path = f"images/{product.category}/{product.product_id}_{kind}{suffix}"
        _write(folder / path, content)
        entries.append(
            Entry(
                image_id=f"{product.product_id}_{kind}",
                product_id=product.product_id,
                category=product.category,
                path=path,
                kind="main" if encoding == "alpha" else kind,
                title=product.title,
                attributes=product.attributes,
                available=product.available,
                encoding=encoding,
            )
        )
    return entries


def _scene(folder: Path, seed: int, made: Sequence[Product], number: int) -> Entry:
    rng = np.random.default_rng((seed, 3, number))
    theme = list(scenes.THEMES)[number % len(scenes.THEMES)]
    shown = scenes.chosen(made, theme, rng)
    picture = scenes.scene(shown, rng)
    name = f"scene-{number + 1:03d}"
    path = f"images/scenes/{name}.jpg"
    _save_scene(folder / path, picture)
    ids = tuple(product.product_id for product in shown)
    title = f"Shop the {theme}"
    attributes = {"theme": theme, "shows": " ".join(ids)}
    return Entry(name, name, "scenes/rooms", path, "scene", title, attributes, encoding="jpeg", shows=ids)


def _save_scene(path: Path, picture: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=88)


def _second_seller(folder: Path, originals: Iterable[Entry]) -> list[Entry]:
    """The same pictures under another seller's product."""
    copies = []
    for original in list(originals)[:2]:
        assert original.path is not None
        product_id = f"{original.product_id}-seller-b"
        image_id = f"{product_id}_{original.kind}"
        path = f"images/seller-b/{image_id}{Path(original.path).suffix}"
        _write(folder / path, (folder / original.path).read_bytes())
        copies.append(
            Entry(
                image_id,
                product_id,
                original.category,
                path,
                original.kind,
                original.title,
                {**original.attributes, "seller": "b"},
                encoding=original.encoding,
                same_bytes_as=original.image_id,
            )
        )
    return copies


def _damaged(folder: Path, bad: Damaged) -> Entry:
    path = f"images/damaged/{bad.name}"
    if bad.content is not None:
        _write(folder / path, bad.content)
    image_id = f"damaged_{bad.name}"
    where = path if bad.has_uri else None
    return Entry(image_id, bad.product_id, bad.category, where, "damaged", "Damaged picture", problem=bad.problem)


def _twice(entry: Entry) -> Entry:
    """A second row of an image_id that sorts after the first, so that this one is rejected."""
    return Entry(
        entry.image_id,
        f"{entry.product_id}-again",
        entry.category,
        entry.path,
        "damaged",
        problem=reasons.DUPLICATE_IMAGE_ID.text,
    )


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def manifest(folder: Path, entries: Sequence[Entry]) -> pa.Table:
    """The manifest of `entries`, with absolute `file:` URIs."""
    rows = [
        {
            "image_id": e.image_id,
            "product_id": e.product_id,
            "category": e.category,
            "uri": files.absolute(str(folder / e.path)) if e.path else None,
            "title": e.title or None,
            "attributes": list(e.attributes.items()),
            "available": e.available,
        }
        for e in entries
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def truth(entries: Sequence[Entry], seed: int) -> dict[str, object]:
    """What a pipeline must find out, by image_id."""
    good = [e for e in entries if not e.problem]
    return {
        "seed": seed,
        "images": {e.image_id: {"product_id": e.product_id, "kind": e.kind, "encoding": e.encoding} for e in good},
        "products": {
            e.product_id: {"category": e.category, "style": e.attributes.get("style"), "available": e.available}
            for e in good
        },
        "duplicates": {e.image_id: e.same_bytes_as for e in good if e.same_bytes_as},
        "scenes": {e.image_id: list(e.shows) for e in good if e.shows},
        "rejected": [
            {"image_id": e.image_id, "product_id": e.product_id, "reason": e.problem} for e in entries if e.problem
        ],
    }
