"""recall@k on the real pictures, from what the pipeline stored: exact search, each image a query, itself left out.

    ./spark-submit.sh make_manifest --csv ../shared/data/magento/images.csv --out /tmp/magento.parquet
    ./spark-submit.sh pipeline --set model.name=efficientnet_lite0 \\
        --set root=/tmp/magento --set manifest=/tmp/magento.parquet
    ./spark-submit.sh make_manifest --csv ../shared/data/clothing/images.csv --column product_id=image \\
        --out /tmp/clothing.parquet
    ./spark-submit.sh pipeline --set model.name=efficientnet_lite0 \\
        --set root=/tmp/clothing --set manifest=/tmp/clothing.parquet
    PYTHONPATH=lib .venv/bin/python tests/bench/recall.py --magento /tmp/magento --clothing /tmp/clothing

The gallery is the whole set, not the query's category, so the figures compare with published ones.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
from deltalake import DeltaTable

KS = (1, 5, 10)


def embedded(root: Path) -> tuple[Any, dict[str, Any]]:
    """(n, dim) embeddings of the images of a root, and their ledger columns and attributes as arrays of n."""
    known = ds.field("status").isin(["embedded", "reused"])
    images = DeltaTable(root / "tables" / "images").to_pyarrow_dataset().to_table(filter=known).to_pylist()
    stored = DeltaTable(root / "tables" / "embeddings").to_pyarrow_table()
    rows = {content_hash: i for i, content_hash in enumerate(stored["content_hash"].to_pylist())}
    vectors = np.stack(stored["embedding"].to_numpy(zero_copy_only=False))
    columns = {name: np.array([image[name] for image in images]) for name in ("product_id", "category")}
    for name in {key for image in images for key, _ in image["attributes"]}:
        columns[name] = np.array([dict(image["attributes"]).get(name, "") for image in images])
    return vectors[[rows[image["content_hash"]] for image in images]], columns


def recall(vectors: Any, relevant: Any, excluded: Any) -> tuple[int, list[float]]:
    """Queries with a relevant image, and the share of them that have one among their nearest k, for each of KS."""
    scores = vectors @ vectors.T
    scores[excluded] = -np.inf
    relevant &= ~excluded
    queries = relevant.any(axis=1)
    nearest = np.argsort(-scores[queries], axis=1)[:, : max(KS)]
    hits = np.take_along_axis(relevant[queries], nearest, axis=1)
    return int(queries.sum()), [float(hits[:, :k].any(axis=1).mean()) for k in KS]


def same(values: Any) -> Any:
    return values[:, None] == values[None, :]


def figures(options: argparse.Namespace) -> Iterator[tuple[str, str, tuple[int, list[float]]]]:
    if options.magento:
        vectors, columns = embedded(options.magento)
        itself = np.eye(len(vectors), dtype=bool)
        for words, name in (
            ("same product, another view", "product_id"),
            ("same style", "style_id"),
            ("same category", "category"),
        ):
            yield "magento", words, recall(vectors, same(columns[name]), itself)
    if options.clothing:
        vectors, columns = embedded(options.clothing)
        measured = recall(vectors, same(columns["category"]), same(columns["sender_id"]))
        yield "clothing", "same category, another sender", measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--magento", type=Path, metavar="ROOT")
    parser.add_argument("--clothing", type=Path, metavar="ROOT")
    print("| set | relevant means | queries | recall@1 | @5 | @10 |\n|---|---|---|---|---|---|")
    for name, relevant, (queries, shares) in figures(parser.parse_args()):
        print(f"| {name} | {relevant} | {queries:,} | " + " | ".join(f"{share:.3f}" for share in shares) + " |")


if __name__ == "__main__":
    main()
