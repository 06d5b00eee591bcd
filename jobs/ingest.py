"""Check the manifest, and update the ledger of images from it."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.catalog.ingest import ingest
from lookalike.spark.start import start

EXAMPLE = "./spark-submit.sh ingest --set root=/data/catalog --set manifest=/data/manifest.parquet"


def main(argv: Sequence[str]) -> int:
    options = cli.arguments(__doc__, argv, EXAMPLE, full=False)

    def job() -> None:
        run = start(cli.settings(options), "ingest", cli.selection(options))
        ingest(run)

    return cli.exit_code(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
