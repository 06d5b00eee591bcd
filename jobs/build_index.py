"""Build and register the index shards of every changed category."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.catalog.build_index import build_index, plan_versions
from lookalike.spark.catalog.model_id import check_embedded_by_run_model
from lookalike.spark.catalog.versions import find_unpublished
from lookalike.spark.start import start

EXAMPLE = "./spark-submit.sh build_index --set root=/data/catalog --category women/dresses"


def main(argv: Sequence[str]) -> int:
    options = cli.parse_arguments(__doc__, argv, EXAMPLE, retry=False)

    def job() -> None:
        run = start(cli.load_settings(options), "build_index", cli.read_selection(options))
        check_embedded_by_run_model(run)
        build_index(run, plan_versions(run, find_unpublished(run)))

    return cli.run_job(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
