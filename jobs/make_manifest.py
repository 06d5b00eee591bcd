"""Make a manifest from a CSV with a row per image, or from a folder with a folder per category."""

import argparse
import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.errors import ConfigInvalid
from lookalike.make_manifest import make_from_csv, make_from_folder

EXAMPLE = "./spark-submit.sh make_manifest --csv products.csv --column product_id=sku --out manifest.parquet"


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    return cli.run_job(lambda: make(options))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.create_parser(__doc__, EXAMPLE)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--csv",
        metavar="FILE",
        help="CSV with the columns product_id, category, and image or uri; optional: image_id, title, available, "
        "deleted, updated_at, content_hash, attributes (key=value;...). Any other column becomes an attribute",
    )
    source.add_argument(
        "--folder",
        metavar="DIR",
        help="folder of images: its folders are the categories, a file's name is the product_id",
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        help="folder of the CSV's images; default: `images` beside the CSV, or else the CSV's folder",
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="FIELD=NAME",
        help="read this field from that column of the CSV, such as product_id=sku; repeatable",
    )
    parser.add_argument("--out", required=True, metavar="URI", help="write the manifest to this Parquet file")
    return parser.parse_args(argv)


def make(options: argparse.Namespace) -> None:
    try:
        if options.folder:
            counts = make_from_folder(options.folder, options.out)
        else:
            counts = make_from_csv(options.csv, options.out, options.images, columns(options.column))
    except OSError as error:
        raise ConfigInvalid(f"{error}; give input that can be read and a writable --out") from error
    print(f"{options.out}: {counts.rows:,} rows, {counts.products:,} products, {counts.categories:,} categories")
    for problem in counts.problems():
        print(problem)


def columns(pairs: Sequence[str]) -> dict[str, str]:
    wrong = [pair for pair in pairs if not all(pair.partition("="))]
    if wrong:
        raise ConfigInvalid(f"--column {', '.join(wrong)}: write it as FIELD=NAME, such as --column product_id=sku")
    return dict(pair.split("=", 1) for pair in pairs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
