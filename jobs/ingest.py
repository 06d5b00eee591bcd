"""Check the manifest, and update the ledger of images from it."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.catalog.ingest import ingest
from lookalike.spark.start import start

EXAMPLE = "./spark-submit.sh ingest --set root=/data/catalog --set manifest=/data/manifest.parquet"


def main(argv: Sequence[str]) -> int:
    options = cli.parse_arguments(__doc__, argv, EXAMPLE, full=False, complete=True)

    def job() -> None:
        run = start(cli.load_settings(options), "ingest", cli.read_selection(options))
        ingest(run)

    return cli.run_job(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
