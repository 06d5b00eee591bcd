"""The default models: what they were made from, and how good category prediction is with them.

    PYTHONPATH=lib:. .venv/bin/python tests/bench/default_model.py split --data ../shared/data --out /tmp/default
    PYTHONPATH=lib:. .venv/bin/python tests/bench/default_model.py keep-original --model default-1 \\
        --manifest /tmp/default/train.parquet --share 0.5 --dim 384 --out /tmp/default/default-2.safetensors
    PYTHONPATH=lib:. .venv/bin/python tests/bench/default_model.py predict --manifest /tmp/default/test.parquet default

Held out are 35 of 100 styles and senders, by hash, and six whole categories. `keep-original` adds to a model that was
fine-tuned without it what `fine_tune` adds by itself: the original network's embedding beside. `predict` fits what
predicts categories on six of ten of the held-out styles and senders, calibrates on two and measures on two, for each of
several random parts. `tests/bench/domains.py` measures what a model finds, among these pictures and others.
"""

import argparse
import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lookalike.config import CategoriesSettings, ModelSettings
from lookalike.kernels.categories.fit import fit
from lookalike.kernels.models import model_file
from lookalike.kernels.models.engines import choose_engine
from lookalike.kernels.models.load import Model, build_model, load_model
from lookalike.kernels.models.model_file import ModelFile
from lookalike.kernels.models.original import keep_original
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
    return embed_files(load_model(settings), uris)


def embed_files(model: Model, uris: Sequence[str]) -> Any:
    forward = choose_engine(model, "auto", threads=2, device="cpu")
    found = []
    for start in range(0, len(uris), 32):
        decoded = [decode(Path(uri).read_bytes(), model.preprocessing, 10**8, 16) for uri in uris[start : start + 32]]
        found.append(forward(np.stack([picture.pixels for picture in decoded if isinstance(picture, DecodedPicture)])))
    embeddings = np.concatenate(found)
    assert len(embeddings) == len(uris)
    return embeddings


def keep(options: argparse.Namespace) -> None:
    file = model_file.read(ModelSettings(name=options.model))
    plain = build_model(ModelFile(file.original_settings), options.model)
    embeddings = torch.from_numpy(embed_files(plain, pq.read_table(options.manifest)["uri"].to_pylist()))
    original = keep_original(plain.module.parts[0], embeddings, options.share, options.dim)
    model_file.write(str(options.out), replace(file, original=original))


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
    keeping = commands.add_parser("keep-original")
    keeping.add_argument("--manifest", type=Path, required=True)
    keeping.add_argument("--model", required=True)
    keeping.add_argument("--share", type=float, required=True)
    keeping.add_argument("--dim", type=int, required=True)
    keeping.add_argument("--out", type=Path, required=True)
    predicting = commands.add_parser("predict")
    predicting.add_argument("--manifest", type=Path, required=True)
    predicting.add_argument("models", nargs="+")
    options = parser.parse_args()
    if options.command == "split":
        split(options.data, options.out)
    elif options.command == "keep-original":
        keep(options)
    else:
        predict(options.manifest, [ModelSettings(name=name) for name in options.models])


if __name__ == "__main__":
    main()
