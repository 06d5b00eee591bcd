"""Print what build_index would build for each category; this changes nothing."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.catalog.build_index import plans
from lookalike.spark.catalog.model_id import embedding_model_id
from lookalike.spark.catalog.plan import check_selected, print_plan
from lookalike.spark.catalog.versions import unpublished
from lookalike.spark.start import start_on_catalog

EXAMPLE = "./spark-submit.sh plan --set root=/data/catalog --category women"


def main(argv: Sequence[str]) -> int:
    options = cli.arguments(__doc__, argv, EXAMPLE, retry=False)

    def job() -> None:
        run = start_on_catalog(cli.settings(options), "plan", writes=False, selection=cli.selection(options))
        check_selected(run)
        model_id = embedding_model_id(run)
        print_plan(run, plans(run, unpublished(run, model_id), model_id))

    return cli.exit_code(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
