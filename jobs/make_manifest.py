"""Make a manifest from a shop's export of its products, or from a folder with a folder per category."""

import argparse
import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.errors import ConfigInvalid
from lookalike.feeds.make_manifest import LAYOUTS, Options, make_from_export, make_from_folder, parse_columns

EXAMPLE = "./spark-submit.sh make_manifest --csv products.csv --column product_id=sku --out manifest.parquet"


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    return cli.run_job(lambda: make(options))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.create_parser(__doc__, EXAMPLE)
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    export_help = "an export of products: CSV, TSV, Google's XML or JSON Lines, also packed as .gz or .zip"
    source.add_argument("--csv", metavar="FILE", help=export_help)
    folder_help = "folder of images: its folders are the categories, a file's name is the product_id"
    source.add_argument("--folder", metavar="DIR", help=folder_help)
    add("--layout", choices=LAYOUTS, help="how the export is laid out; default: recognised by its columns")
    images_help = "folder of the export's images; default: `images` beside the export, or else the export's folder"
    add("--images", metavar="DIR", help=images_help)
    column_help = "read this field from that column of the export, such as product_id=sku; repeatable"
    add("--column", action="append", default=[], metavar="FIELD=NAME", help=column_help)
    every_help = "take an image into each of its categories; default: the deepest of the first"
    add("--all-categories", action="store_true", dest="every_category", help=every_help)
    add("--encoding", metavar="NAME", help="the export's encoding, such as cp1250; default: detected")
    add("--out", required=True, metavar="URI", help="write the manifest to this Parquet file")
    return parser.parse_args(argv)


def make(given: argparse.Namespace) -> None:
    options = Options(given.layout, given.images, parse_columns(given.column), given.encoding, given.every_category)
    try:
        outcome = (
            make_from_folder(given.folder, given.out)
            if given.folder
            else make_from_export(given.csv, given.out, options)
        )
    except OSError as error:
        raise ConfigInvalid(f"{error}; give input that can be read and a writable --out") from error
    counts = outcome.counts
    print(f"{given.out}: {counts.rows:,} rows, {counts.products:,} products, {counts.categories:,} categories")
    for note in outcome.notes:
        print(note)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
