"""Make a manifest and a query manifest from a public set of product pictures."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lookalike import cli
from lookalike.errors import ConfigInvalid
from lookalike.import_benchmark import GALLERY_FILE, LAYOUTS, QUERY_FILE, import_benchmark

EXAMPLE = "./spark-submit.sh import_benchmark --layout deepfashion-inshop --folder /data/inshop --out /data/manifests"


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    return cli.run_job(lambda: make(options))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.create_parser(__doc__, EXAMPLE)
    parser.add_argument("--layout", required=True, choices=LAYOUTS, help="the format of the set")
    parser.add_argument("--folder", required=True, type=Path, metavar="DIR", help="the unpacked set")
    parser.add_argument(
        "--out",
        required=True,
        metavar="URI",
        help=f"write {GALLERY_FILE} (the manifest) and {QUERY_FILE} to this folder",
    )
    return parser.parse_args(argv)


def make(options: argparse.Namespace) -> None:
    try:
        counts = import_benchmark(options.layout, options.folder, options.out)
    except OSError as error:
        raise ConfigInvalid(f"{error}; give input that can be read and a writable --out") from error
    print(f"{options.out}: {counts.gallery:,} gallery images, {counts.queries:,} queries")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
