"""Print what build_index would build for each category; this changes nothing."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.catalog.build_index import plan_versions
from lookalike.spark.catalog.model_id import check_embedded_by_run_model
from lookalike.spark.catalog.plan import check_selected, print_plan
from lookalike.spark.catalog.versions import find_unpublished
from lookalike.spark.start import start_on_catalog

EXAMPLE = "./spark-submit.sh plan --set root=/data/catalog --category women"


def main(argv: Sequence[str]) -> int:
    options = cli.parse_arguments(__doc__, argv, EXAMPLE, retry=False)

    def job() -> None:
        run = start_on_catalog(cli.load_settings(options), "plan", writes=False, selection=cli.read_selection(options))
        check_selected(run)
        check_embedded_by_run_model(run)
        print_plan(run, plan_versions(run, find_unpublished(run)))

    return cli.run_job(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
