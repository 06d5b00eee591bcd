"""Pin a version of a category, so that cleanup keeps it at any age."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.operations.pins import pin
from lookalike.spark.start import start_on_catalog

EXAMPLE = (
    './spark-submit.sh pin --set root=/data/catalog --category women/dresses --version VERSION --why "to compare with"'
)


def main(argv: Sequence[str]) -> int:
    parser = cli.create_parser(__doc__, EXAMPLE)
    cli.add_settings_options(parser)
    parser.add_argument("--category", required=True, metavar="CATEGORY", help="the category, as history names it")
    parser.add_argument("--version", required=True, metavar="VERSION", help="the version, as history names it")
    parser.add_argument("--why", required=True, metavar="TEXT", help="the reason, which is recorded with your name")
    options = parser.parse_args(argv)

    def job() -> None:
        run = start_on_catalog(cli.load_settings(options), "pin", writes=True)
        pin(run, options.category, options.version, options.why)
        print(f"{options.category}: version {options.version} is pinned")

    return cli.run_job(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
