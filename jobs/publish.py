"""Hold every changed category against the gate, then make all of them live at once."""

import sys
from collections.abc import Sequence

from lookalike import cli
from lookalike.spark.gallery import unpublished
from lookalike.spark.model_id import current_model_id
from lookalike.spark.publish import publish
from lookalike.spark.start import start


def main(argv: Sequence[str]) -> int:
    options = cli.arguments(__doc__, argv)

    def job() -> None:
        run = start(cli.settings(options), "publish")
        model_id = current_model_id(run)
        publish(run, unpublished(run, model_id), model_id)

    return cli.exit_code(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
