"""Find the similar items of every product of the changed categories."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.catalog.model_id import check_embedded_by_run_model
from lookalike.spark.catalog.similar_items import similar_items
from lookalike.spark.catalog.versions import find_unpublished
from lookalike.spark.start import start

EXAMPLE = "./spark-submit.sh similar_items --set root=/data/catalog --category women/dresses"


def main(argv: Sequence[str]) -> int:
    options = cli.parse_arguments(__doc__, argv, EXAMPLE, retry=False)

    def job() -> None:
        run = start(cli.load_settings(options), "similar_items", cli.read_selection(options))
        check_embedded_by_run_model(run)
        similar_items(run, find_unpublished(run))

    return cli.run_job(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
