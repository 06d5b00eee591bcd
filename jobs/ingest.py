"""Check the manifest and bring the ledger of images up to date with it."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.catalog.ingest import ingest
from lookalike.spark.start import start


def main(argv: Sequence[str]) -> int:
    options = cli.arguments(__doc__, argv, full=False)

    def job() -> None:
        run = start(cli.settings(options), "ingest", cli.selection(options))
        ingest(run)

    return cli.exit_code(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
