"""Keep a version of a category, whatever its age, until it is unpinned."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.operations.pins import pin
from lookalike.spark.start import start_on_catalog


def main(argv: Sequence[str]) -> int:
    parser = cli.parser(__doc__)
    cli.add_settings_options(parser)
    parser.add_argument("--category", required=True, metavar="CATEGORY")
    parser.add_argument("--version", required=True, metavar="VERSION")
    parser.add_argument("--why", required=True, metavar="TEXT", help="recorded with your name")
    options = parser.parse_args(argv)

    def job() -> None:
        run = start_on_catalog(cli.settings(options), "pin", writes=True)
        pin(run, options.category, options.version, options.why)
        print(f"{options.category}: version {options.version} is pinned")

    return cli.exit_code(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
