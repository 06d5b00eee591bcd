"""Make the version live again that the live one replaced, or another one that was live before."""

import argparse
import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.rollback import rollback
from lookalike.spark.start import start_on_catalog


def main(argv: Sequence[str]) -> int:
    options = parse(argv)

    def job() -> None:
        run = start_on_catalog(cli.settings(options), "rollback", writes=True)
        version = rollback(run, options.category, options.to)
        print(f"{options.category}: version {version} is live")

    return cli.exit_code(job)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings_options(parser)
    parser.add_argument("--category", required=True, metavar="CATEGORY", help="one category, as history names it")
    parser.add_argument("--to", metavar="VERSION", help="default: what the live version replaced")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
