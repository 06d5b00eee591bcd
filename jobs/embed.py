"""Embed the images that have no embedding yet, and look for placeholders."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.catalog.embed import embed
from lookalike.spark.catalog.ingest import check_ingested, compare_manifest
from lookalike.spark.catalog.placeholders import find_placeholders
from lookalike.spark.start import start

EXAMPLE = "./spark-submit.sh embed --set root=/data/catalog --retry-rejected"


def main(argv: Sequence[str]) -> int:
    options = cli.parse_arguments(__doc__, argv, EXAMPLE, full=False)

    def job() -> None:
        run = start(cli.load_settings(options), "embed", cli.read_selection(options))
        check_ingested(run)
        embed(run, compare_manifest(run))
        find_placeholders(run)

    return cli.run_job(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
