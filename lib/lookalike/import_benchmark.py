"""Public sets of product pictures as a manifest and a query manifest, so that published figures can be measured again.

Each layout is that of the set as it is unpacked. What is gallery and what is query follows the set's own protocol.
"""

import csv
import gzip
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lookalike import files, schemas
from lookalike.errors import ManifestInvalid

GALLERY_FILE, QUERY_FILE = "gallery.parquet", "queries.parquet"

_GALLERY = pa.schema(
    [
        *schemas.MANIFEST_REQUIRED,
        *(schemas.MANIFEST_OPTIONAL.field(name) for name in ("uri", "content", "title", "attributes")),
    ]
)
_QUERIES = pa.schema([*schemas.QUERY_REQUIRED, *(f for f in schemas.QUERY_OPTIONAL if f.name != "embedding")])
_BLOCK_ROWS = 5_000

Role = Literal["gallery", "query", "both"]


@dataclass(frozen=True)
class Picture:
    """A picture of a set. If its role is `both`, it is a query that must not find itself. `where`: file or bytes."""

    image_id: str
    category: str
    where: Path | bytes
    role: Role
    product_id: str | None = None  # None where the set knows of no products
    attributes: Mapping[str, str] = field(default_factory=dict)
    title: str | None = None


@dataclass(frozen=True)
class Counts:
    """What was written."""

    gallery: int
    queries: int


def import_benchmark(layout: str, folder: Path, out: str) -> Counts:
    """Read the set in `folder`, in one of LAYOUTS, and write `gallery.parquet` and `queries.parquet` below `out`.

    Raises ManifestInvalid if the folder has another layout.
    """
    pictures = LAYOUTS[layout](folder)
    target = files.absolute(out)
    counts = {"gallery": 0, "queries": 0}
    with (
        files.write_atomically(files.join(target, GALLERY_FILE)) as gallery_path,
        files.write_atomically(files.join(target, QUERY_FILE)) as queries_path,
    ):
        with (
            pq.ParquetWriter(gallery_path, _GALLERY) as gallery,
            pq.ParquetWriter(queries_path, _QUERIES) as queries,
        ):
            for block in _split_blocks(pictures):
                gallery_rows = [_to_gallery_row(picture) for picture in block if picture.role != "query"]
                query_rows = [_to_query_row(picture) for picture in block if picture.role != "gallery"]
                gallery.write_table(pa.Table.from_pylist(gallery_rows, _GALLERY))
                queries.write_table(pa.Table.from_pylist(query_rows, _QUERIES))
                counts["gallery"] += len(gallery_rows)
                counts["queries"] += len(query_rows)
        if not all(counts.values()):
            raise ManifestInvalid(f"{folder}: {counts['gallery']} gallery images and {counts['queries']} queries found")
    return Counts(**counts)


def _split_blocks(pictures: Iterator[Picture]) -> Iterator[list[Picture]]:
    block: list[Picture] = []
    for picture in pictures:
        block.append(picture)
        if len(block) == _BLOCK_ROWS:
            yield block
            block = []
    if block:
        yield block


def _to_gallery_row(picture: Picture) -> dict[str, Any]:
    return {
        "image_id": picture.image_id,
        "product_id": picture.product_id or picture.image_id,
        "category": picture.category,
        "title": picture.title,
        "attributes": list(picture.attributes.items()),
        **_locate(picture),
    }


def _to_query_row(picture: Picture) -> dict[str, Any]:
    return {
        "query_id": picture.image_id,
        "product_id": picture.product_id,
        "category": picture.category,
        "image_id": picture.image_id if picture.role == "both" else None,
        "attributes": list(picture.attributes.items()),
        **_locate(picture),
    }


def _locate(picture: Picture) -> dict[str, Any]:
    if isinstance(picture.where, bytes):
        return {"content": picture.where}
    return {"uri": files.absolute(str(picture.where))}


def _read_stanford_online_products(folder: Path) -> Iterator[Picture]:
    """Song et al. 2016: each test picture is a query among all test pictures, itself left out."""
    for number, line in _read_lines(folder, "Ebay_test.txt", skip=1):
        _, class_id, _, path = _split_fields(folder, "Ebay_test.txt", number, line, 4)
        category = Path(path).parent.name.removesuffix("_final")
        yield Picture(path, category, folder / path, "both", class_id)


def _read_deepfashion_inshop(folder: Path) -> Iterator[Picture]:
    """Liu et al. 2016: pictures of the part `query` are asked, those of `gallery` searched, those of `train` neither.

    The list may be in `Eval`, the pictures in `Img`, as they are offered.
    """
    name = (
        "list_eval_partition.txt" if (folder / "list_eval_partition.txt").exists() else "Eval/list_eval_partition.txt"
    )
    images = folder if (folder / "img").is_dir() else folder / "Img"
    roles: dict[str, Role] = {"query": "query", "gallery": "gallery"}
    for number, line in _read_lines(folder, name, skip=2):
        path, item_id, part = _split_fields(folder, name, number, line, 3)
        if part in roles:
            category = "/".join(Path(path).parts[1:-2])  # img/WOMEN/Dresses/id_00000002/02_1_front.jpg
            view = Path(path).stem.split("_", 2)[-1]
            yield Picture(path, category, images / path, roles[part], item_id, {"view": view})


def _read_fashion_mnist(folder: Path) -> Iterator[Picture]:
    """Xiao et al. 2017: the 10,000 test pictures are asked, the 60,000 of training searched; there are no products."""
    from PIL import Image

    parts: tuple[tuple[str, str, Role], ...] = (("train", "train", "gallery"), ("test", "t10k", "query"))
    for part, prefix, role in parts:
        pixels = _read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", 3)
        labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", 1)
        for number, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "PNG")
            yield Picture(f"{part}-{number:05d}", _FASHION_MNIST[label], file.getvalue(), role)


_FASHION_MNIST = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]


def _read_idx(path: Path, dims: int) -> NDArray[np.uint8]:
    """An IDX file of bytes: two zeros, the type, the number of dimensions, each dimension, then the values."""
    try:
        data = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise ManifestInvalid(f"{path}: no such file; give the folder with the set's four .gz files") from None
    shape = np.frombuffer(data, ">u4", dims, offset=4) if data[:4] == bytes([0, 0, 8, dims]) else None
    if shape is None or len(data) != 4 + 4 * dims + shape.prod():
        raise ManifestInvalid(f"{path}: not an IDX file of bytes in {dims} dimensions")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(shape)


def _read_products_10k(folder: Path) -> Iterator[Picture]:
    """Bai et al. 2020: the test pictures are asked, those of training searched; a product is a `class`."""
    test = "test.csv" if (folder / "test.csv").exists() else "test_kaggletest.csv"
    parts: tuple[tuple[str, str, Role], ...] = (("train", "train.csv", "gallery"), ("test", test, "query"))
    for part, name, role in parts:
        for row in _read_table(folder, name, ("name", "class", "group")):
            path = folder / part / row["name"]
            yield Picture(f"{part}/{row['name']}", row["group"], path, role, row["class"])


def _read_magento(folder: Path, product: str = "product_id") -> Iterator[Picture]:
    """Studio pictures of a demo shop: each is a query among all of them, itself left out."""
    for row in _read_table(folder, "images.csv", ("image", product, "category", "title", "color")):
        attributes = {"color": row["color"], "view": Path(row["image"]).stem.rpartition("_")[2]}
        attributes = {name: value for name, value in attributes.items() if value}
        path = folder / "images" / row["image"]
        yield Picture(row["image"], row["category"], path, "both", row[product], attributes, row["title"])


def _read_magento_styles(folder: Path) -> Iterator[Picture]:
    """The same, where a style in another colour is the same product."""
    return _read_magento(folder, "style_id")


def _read_clothing(folder: Path) -> Iterator[Picture]:
    """People's photos of their own clothes: those of about half of the people are asked, the others' searched.

    So nobody's photos are on both sides. There are no products.
    """
    for row in _read_table(folder, "images.csv", ("image", "category", "kids", "sender_id")):
        asked = hashlib.sha256(row["sender_id"].encode()).digest()[0] % 2
        where = folder / "images" / row["image"]
        attributes = {"kids": row["kids"]} if row["kids"] else {}
        yield Picture(row["image"], row["category"], where, "query" if asked else "gallery", None, attributes)


LAYOUTS: dict[str, Callable[[Path], Iterator[Picture]]] = {
    "stanford-online-products": _read_stanford_online_products,
    "deepfashion-inshop": _read_deepfashion_inshop,
    "fashion-mnist": _read_fashion_mnist,
    "products-10k": _read_products_10k,
    "magento": _read_magento,
    "magento-styles": _read_magento_styles,
    "clothing": _read_clothing,
}


def _read_lines(folder: Path, name: str, skip: int) -> Iterator[tuple[int, str]]:
    """Lines of a list with their numbers, without the first `skip`."""
    with _open(folder, name) as file:
        for number, line in enumerate(file, 1):
            if number > skip and line.strip():
                yield number, line


def _split_fields(folder: Path, name: str, number: int, line: str, count: int) -> list[str]:
    fields = line.split()
    if len(fields) != count:
        raise ManifestInvalid(f"{folder / name}: line {number}: {len(fields)} fields, must be {count}")
    return fields


def _read_table(folder: Path, name: str, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Rows of a CSV that has at least these columns."""
    with _open(folder, name) as file:
        rows = csv.DictReader(file)
        if missing := [column for column in columns if column not in (rows.fieldnames or ())]:
            raise ManifestInvalid(f"{folder / name}: no column {', '.join(missing)}")
        yield from rows


def _open(folder: Path, name: str) -> io.TextIOWrapper:
    try:
        return (folder / name).open(encoding="utf-8", newline="")
    except FileNotFoundError:
        raise ManifestInvalid(f"{folder}: no {name}; give the folder of the unpacked set") from None
