"""The model that comes with the library: what it was trained on, and how good it is on what it was not.

    PYTHONPATH=lib:. .venv/bin/python tests/bench/default_model.py split --data ../shared/data --out /tmp/default
    for job in ingest embed "fine_tune --out /tmp/default/default.safetensors"; do
        ./spark-submit.sh $job --config lib/lookalike/default_model/fine_tune.toml \\
            --set root=/tmp/default/root --set manifest=/tmp/default/train.parquet
    done
    PYTHONPATH=lib:. .venv/bin/python tests/bench/default_model.py measure --manifest /tmp/default/test.parquet \\
        efficientnet_lite0 /tmp/default/default.safetensors
    PYTHONPATH=lib:. .venv/bin/python tests/bench/default_model.py predict --manifest /tmp/default/test.parquet default

Held out are 35 of 100 styles and senders, by hash, and six whole categories. `measure` searches the held-out pictures
exactly, each a query, itself left out, and prints recall@1 of each model. `predict` fits what predicts categories on
six of ten of the held-out styles and senders, calibrates on two and measures on two, for each of several random parts.
"""

import argparse
import csv
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tests.bench.recall import recall, same

from lookalike.config import CategoriesSettings, ModelSettings, Precision
from lookalike.kernels.categories.fit import fit
from lookalike.kernels.models.engines import choose_engine
from lookalike.kernels.models.load import load_model
from lookalike.kernels.pictures.images import DecodedPicture, decode

PARTS = 12
FIGURES = (
    *(f"{name}_accuracy@{k}" for k in (1, 3) for name in ("classifier", "vote", "fused")),
    "ece_before",
    "ece_after",
)
HELD_OUT_SHARE = 35  # of 100
HELD_OUT_CATEGORIES = ("Gear/Bags", "Men/Bottoms/Shorts", "Women/Tops/Jackets", "Skirt", "Hat", "Blazer")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("image_id", "product_id", "category", "uri")),
        ("attributes", pa.map_(pa.string(), pa.string())),
    ]
)


def pictures(data: Path) -> Iterator[tuple[bool, dict[str, Any]]]:
    """Whether it is held out, and the manifest's row, of each picture of both sets."""
    for name in ("magento", "clothing"):
        paths = {path.name: path for path in (data / name).rglob("*.jpg")}
        with (data / name / "images.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                image = Path(row["image"]).name
                owner = row.get("style_id") or row["sender_id"]
                number = int(hashlib.sha256(f"{name} {owner}".encode()).hexdigest(), 16) % 100
                attributes = [("owner", f"{name}-{owner}")]
                if name == "magento":
                    attributes.append(("style", owner))
                yield (
                    number < HELD_OUT_SHARE or row["category"] in HELD_OUT_CATEGORIES,
                    {
                        "image_id": f"{name}/{image}",
                        "product_id": row.get("product_id") or image,
                        "category": f"{name}/{row['category']}",
                        "uri": str(paths[image].resolve()),
                        "attributes": attributes,
                    },
                )


def split(data: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = list(pictures(data))
    for name, held_out in (("train", False), ("test", True)):
        chosen = [row for is_held_out, row in rows if is_held_out == held_out]
        pq.write_table(pa.Table.from_pylist(chosen, SCHEMA), out / f"{name}.parquet")
        print(f"{out / name}.parquet: {len(chosen):,} pictures")


def embedded(settings: ModelSettings, uris: Sequence[str]) -> Any:
    """(n, dim) by the fastest engine."""
    model = load_model(settings)
    forward = choose_engine(model, "auto", threads=2, device="cpu")
    found = []
    for start in range(0, len(uris), 32):
        decoded = [decode(Path(uri).read_bytes(), model.preprocessing, 10**8, 16) for uri in uris[start : start + 32]]
        found.append(forward(np.stack([picture.pixels for picture in decoded if isinstance(picture, DecodedPicture)])))
    embeddings = np.concatenate(found)
    assert len(embeddings) == len(uris)
    return embeddings


def measure(manifest: Path, models: Sequence[ModelSettings]) -> None:
    rows = pq.read_table(manifest).to_pylist()
    uris = [row["uri"] for row in rows]
    owners, styles = (np.array([dict(row["attributes"]).get(name, "") for row in rows]) for name in ("owner", "style"))
    columns = {name: np.array([row[name] for row in rows]) for name in ("product_id", "category")} | {"style": styles}
    is_magento = np.array([row["image_id"].startswith("magento/") for row in rows])
    is_new = np.array([row["category"].partition("/")[2] in HELD_OUT_CATEGORIES for row in rows])
    lines = [
        ("magento", "product_id", is_magento),
        ("magento", "style", is_magento),
        ("magento", "category", is_magento),
        ("clothing", "category", ~is_magento),
    ]
    embeddings = [embedded(settings, uris) for settings in models]
    print("| set | held out | same | queries |", *(f" {Path(settings.name).stem} |" for settings in models), sep="")
    print("|---|---|---|---|", *("---|" for _ in models), sep="")
    for held_out, among in (("all", is_new | ~is_new), ("of known categories", ~is_new), ("new categories", is_new)):
        for name, label, of_set in lines:
            chosen = np.flatnonzero(of_set & among)
            values = columns[label][chosen]
            excluded = same(owners[chosen]) if name == "clothing" else np.eye(len(chosen), dtype=bool)
            found = [recall(e[chosen], same(values), excluded) for e in embeddings]
            shares = " | ".join(f"{share:.3f}" for _, (share, *_) in found)
            print(f"| {name} | {held_out} | {label.removesuffix('_id')} | {found[0][0]:,} | {shares} |")


def predict(manifest: Path, models: Sequence[ModelSettings]) -> None:
    rows = pq.read_table(manifest).to_pylist()
    owners, categories = [dict(row["attributes"])["owner"] for row in rows], [row["category"] for row in rows]
    print("| set | model | images to measure |", *(f" {name} |" for name in FIGURES), sep="")
    print("|---|---|---|", *("---|" for _ in FIGURES), sep="")
    for settings in models:
        embeddings = embedded(settings, [row["uri"] for row in rows])
        for name in ("clothing", "magento"):
            of_set = [place for place, category in enumerate(categories) if category.startswith(f"{name}/")]
            given = embeddings[of_set], [categories[place] for place in of_set], [owners[place] for place in of_set]
            parts = [
                {figure.metric: figure for figure in fit(*given, CategoriesSettings().neighbours, seed).figures}
                for seed in range(PARTS)
            ]
            sizes = [part["fused_accuracy@1"].n for part in parts]
            means = " | ".join(f"{np.mean([part[figure].value for part in parts]):.3f}" for figure in FIGURES)
            print(f"| {name} | {Path(settings.name).stem} | {min(sizes)} to {max(sizes)} | {means} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    splitting = commands.add_parser("split")
    splitting.add_argument("--data", type=Path, required=True)
    splitting.add_argument("--out", type=Path, required=True)
    for name in ("measure", "predict"):
        measuring = commands.add_parser(name)
        measuring.add_argument("--manifest", type=Path, required=True)
        measuring.add_argument("--precision", choices=get_args(Precision), default="float32")
        measuring.add_argument("models", nargs="+")
    options = parser.parse_args()
    if options.command == "split":
        split(options.data, options.out)
        return
    models = [ModelSettings(name=name, precision=options.precision) for name in options.models]
    (measure if options.command == "measure" else predict)(options.manifest, models)


if __name__ == "__main__":
    main()
