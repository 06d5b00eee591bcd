"""A process that publishes when it is told to: `python -m tests.cluster.publisher NAME`.

For each line on stdin, `ROOT NUMBER CATEGORY...`, it looks at what is live, says `looked`, waits for one more line,
then publishes the version NAME-NUMBER of each category, and says how that went: `won`, or the name of the error.
"""

import sys

import pyarrow as pa
from rich.console import Console
from tests.spark.rows import with_model
from tests.spark.versions import MODEL, candidate, ledger, measured_rows

from lookalike import schemas
from lookalike.config import Settings
from lookalike.errors import LookalikeError
from lookalike.spark.catalog.publish import publish
from lookalike.spark.run import Run, new_run_id
from lookalike.spark.session import session


def main(name: str) -> None:
    spark = session(name)
    for line in sys.stdin:
        root, number, *categories = line.split()
        run = with_model(Run(spark, Settings(root=root), new_run_id(), Console(quiet=True)), MODEL)
        if run.tables.read("images").isEmpty():
            ledger(run, **dict.fromkeys("abcd", "embedded"))  # a category without images would be withdrawn
        found = [candidate(run, category, f"{name}-{number}") for category in categories]
        rows = [row for v in found for row in measured_rows(v.category, v.version, v.live_version)]
        run.tables.append("evaluations", spark.createDataFrame(pa.Table.from_pylist(rows, schemas.EVALUATIONS)))
        print("looked", flush=True)
        sys.stdin.readline()
        try:
            publish(run, found)
        except LookalikeError as error:
            print(type(error).__name__, flush=True)
        else:
            print("won", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
