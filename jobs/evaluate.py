"""Measure every changed category against exact search and known truth."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.evaluate import evaluate
from lookalike.spark.gallery import unpublished
from lookalike.spark.model_id import current_model_id
from lookalike.spark.start import start


def main(argv: Sequence[str]) -> int:
    options = cli.arguments(__doc__, argv, retry=False)

    def job() -> None:
        run = start(cli.settings(options), "evaluate", cli.selection(options))
        model_id = current_model_id(run)
        evaluate(run, unpublished(run, model_id), model_id)

    return cli.exit_code(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
