"""Print what was published, rolled back, pinned and cleaned up, with time, user and reason."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.operations.history import print_history
from lookalike.spark.start import start_on_catalog

EXAMPLE = "./spark-submit.sh history --set root=/data/catalog --category women/dresses"


def main(argv: Sequence[str]) -> int:
    parser = cli.create_parser(__doc__, EXAMPLE)
    cli.add_settings_options(parser)
    parser.add_argument(
        "--category",
        metavar="CATEGORY",
        help="show only this category and those below it, a line for each action; default: all",
    )
    options = parser.parse_args(argv)

    def job() -> None:
        run = start_on_catalog(cli.load_settings(options), "history", writes=False)
        print_history(run.tables, options.category)

    return cli.run_job(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
