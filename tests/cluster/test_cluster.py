"""A packed job of the tests' own runs on every worker, with what spark-submit.sh promises it."""

import json
import subprocess
from pathlib import Path

import deltalake

JOB = '''"""Write where each task ran."""
import argparse
import json
import os
import sys
import time
from importlib import resources
from pathlib import Path

import pandas as pd
from pyspark import TaskContext
from lookalike.config import load
from lookalike.spark.session import session

parser = argparse.ArgumentParser()
parser.add_argument("--config", type=Path)
parser.add_argument("--set", action="append")
options = parser.parse_args()
settings = load(options.config, options.set)


def where(batches):
    import faiss
    import lookalike

    time.sleep(2)  # long enough for the other executor to take its task
    for _ in batches:
        yield pd.DataFrame({"place": [json.dumps({
            "python": sys.executable,
            "library": lookalike.__file__,
            "page": len(resources.files("lookalike.report").joinpath("template.html").read_text()),
            "faiss": faiss.IndexFlatIP(4).d,
            "gpus": TaskContext.get().resources()["gpu"].addresses,
            "omp_threads": os.environ["OMP_NUM_THREADS"],
            "environment": os.path.realpath("environment"),
        })]})


spark = session("where")
spark.range(2, numPartitions=2).mapInPandas(where, "place string").write.format("delta").save(settings.root)
print("driver", sys.executable)
'''


def test_a_packed_job_runs_on_every_worker_with_a_gpu_each(
    checkout: Path, master: str, environment: dict[str, str], tmp_path: Path
) -> None:
    (checkout / "jobs" / "where.py").write_text(JOB)
    script = str(checkout / "spark-submit.sh")
    root = tmp_path / "root"
    memory = "spark.executor.memory=512m spark.executor.memoryOverhead=256m"
    share = "spark.executor.cores=1 spark.task.resource.gpu.amount=1 spark.cores.max=2"
    ready = "spark.scheduler.minRegisteredResourcesRatio=1 spark.scheduler.maxRegisteredResourcesWaitingTime=120s"
    command = [script, "where", "--set", f"root={root}", "--master", master, "--"]
    for setting in f"{memory} {share} {ready}".split():
        command += ["--conf", setting]
    job = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=900)

    assert job.returncode == 0, job.stderr
    assert f"driver {checkout / '.venv/bin/python'}" in job.stdout
    places = [json.loads(row) for row in deltalake.DeltaTable(root).to_pyarrow_table()["place"].to_pylist()]
    assert len({place["environment"] for place in places}) == 2
    for place in places:
        assert Path(place["python"]).parts[-3:] == ("environment", "bin", "python")
        assert str(checkout) not in place["environment"]
        assert "lookalike.zip" in place["library"]
        assert place["page"] > 0
        assert place["faiss"] == 4
        assert place["gpus"] == ["0"]
        assert place["omp_threads"] == "1"
