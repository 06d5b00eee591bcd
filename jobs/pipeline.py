"""Run all stages, from the manifest to the published catalog and its report."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.pipeline import pipeline
from lookalike.spark.start import start

EXAMPLE = "./spark-submit.sh pipeline --set root=/data/catalog --set manifest=/data/manifest.parquet"


def main(argv: Sequence[str]) -> int:
    options = cli.parse_arguments(__doc__, argv, EXAMPLE, complete=True)

    def job() -> None:
        run = start(cli.load_settings(options), "pipeline", cli.read_selection(options))
        pipeline(run)

    return cli.run_job(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
