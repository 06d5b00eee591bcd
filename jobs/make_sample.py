"""Draw the sample catalog: pictures, their manifest, and truth.json, which says what they show."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lookalike import cli
from lookalike.sample import make_sample

EXAMPLE = "./spark-submit.sh make_sample --out sample --products 48"


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    return cli.run_job(lambda: make(options))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.create_parser(__doc__, EXAMPLE)
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="write to this folder; files of the same name are replaced",
    )
    parser.add_argument("--products", type=int, default=240, metavar="N", help="products to draw; default: %(default)s")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of every random choice; default: %(default)s"
    )
    return parser.parse_args(argv)


def make(options: argparse.Namespace) -> None:
    print(make_sample(options.out, options.products, options.seed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
