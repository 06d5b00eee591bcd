"""Leave a pinned version of a category to cleanup again."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.operations.pins import unpin
from lookalike.spark.start import start_on_catalog


def main(argv: Sequence[str]) -> int:
    parser = cli.parser(__doc__)
    cli.add_settings_options(parser)
    parser.add_argument("--category", required=True, metavar="CATEGORY")
    parser.add_argument("--version", required=True, metavar="VERSION")
    options = parser.parse_args(argv)

    def job() -> None:
        unpin(start_on_catalog(cli.settings(options), "unpin", writes=True), options.category, options.version)
        print(f"{options.category}: version {options.version} is not pinned any more")

    return cli.exit_code(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
