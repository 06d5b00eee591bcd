"""Write the pictures by which `fine_tune` measures what a model forgets: six small ones of each product in `grocery/`.

    .venv/bin/python tests/bench/outside_pictures.py --data ../shared/data --out lib/lookalike/outside

Photos come in bursts, so those taken are spread over each product's.
"""

import argparse
import csv
import io
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

PICTURES = 6  # of each product
SIDE_PX = 224
QUALITY = 80


def shrink(path: Path) -> bytes:
    """The picture as a small JPEG, without metadata."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    upright.thumbnail((SIDE_PX, SIDE_PX))
    file = io.BytesIO()
    upright.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    grocery = options.data / "grocery"
    paths = {path.name: path for path in grocery.rglob("*.jpg")}
    by_product: dict[str, list[str]] = {}
    with (grocery / "images.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["split"] == "train":
                by_product.setdefault(row["product"], []).append(Path(row["image"]).name)
    rows = []
    for product, names in sorted(by_product.items()):
        names.sort()
        chosen = [names[place * (len(names) - 1) // (PICTURES - 1)] for place in range(PICTURES)]
        rows += [{"product": product, "picture": shrink(paths[name])} for name in chosen]
    options.out.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("product", pa.string()), ("picture", pa.binary())])
    pq.write_table(pa.Table.from_pylist(rows, schema), options.out / "pictures.parquet", compression="none")
    shutil.copyfile(grocery / "LICENSE", options.out / "LICENSE")
    print(f"{len(rows)} pictures of {len(by_product)} products")


if __name__ == "__main__":
    main()
