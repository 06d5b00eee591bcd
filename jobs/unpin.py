"""Unpin a version of a category, so that cleanup may remove it."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.operations.pins import unpin
from lookalike.spark.start import start_on_catalog

EXAMPLE = "./spark-submit.sh unpin --set root=/data/catalog --category women/dresses --version VERSION"


def main(argv: Sequence[str]) -> int:
    parser = cli.create_parser(__doc__, EXAMPLE)
    cli.add_settings_options(parser)
    parser.add_argument("--category", required=True, metavar="CATEGORY", help="the category, as history names it")
    parser.add_argument("--version", required=True, metavar="VERSION", help="the version, as history names it")
    options = parser.parse_args(argv)

    def job() -> None:
        unpin(start_on_catalog(cli.load_settings(options), "unpin", writes=True), options.category, options.version)
        print(f"{options.category}: version {options.version} is not pinned any more")

    return cli.run_job(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
