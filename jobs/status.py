"""Print per category what is live, since when, how good, what waits, and what was rejected and why."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.start import start_on_catalog
from lookalike.spark.status import print_status


def main(argv: Sequence[str]) -> int:
    options = cli.arguments(__doc__, argv, full=False, retry=False)

    def job() -> None:
        run = start_on_catalog(cli.settings(options), "status", writes=False, selection=cli.selection(options))
        print_status(run)

    return cli.exit_code(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
