"""Build and register the index shards of every changed category."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.catalog.build_index import build_index, plans
from lookalike.spark.catalog.model_id import embedding_model_id
from lookalike.spark.catalog.versions import unpublished
from lookalike.spark.start import start

EXAMPLE = "./spark-submit.sh build_index --set root=/data/catalog --category women/dresses"


def main(argv: Sequence[str]) -> int:
    options = cli.arguments(__doc__, argv, EXAMPLE, retry=False)

    def job() -> None:
        run = start(cli.settings(options), "build_index", cli.selection(options))
        model_id = embedding_model_id(run)
        build_index(run, plans(run, unpublished(run, model_id), model_id), model_id)

    return cli.exit_code(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
