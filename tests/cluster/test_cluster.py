"""A standalone Spark of several processes, and a job that `spark-submit.sh` packs and submits to it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import deltalake
import pyspark
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SITE = Path(pyspark.__file__).parents[1]

# What the job below needs, so that the test packs megabytes instead of gigabytes.
PACKAGES = [
    "annotated_types",
    "dateutil",
    "delta",
    "faiss",
    "faiss_cpu.libs",
    "importlib_metadata",
    "numpy",
    "numpy.libs",
    "packaging",
    "pandas",
    "py4j",
    "pyarrow",
    "pydantic",
    "pydantic_core",
    "pyspark",
    "pytz",
    "six.py",
    "typing_extensions.py",
    "typing_inspection",
    "tzdata",
    "zipp",
]

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


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in a folder with a space in its name, with the job above and a small `.venv` of its own."""
    copy = tmp_path_factory.mktemp("a checkout")
    shutil.copy2(CHECKOUT / "spark-submit.sh", copy)
    for folder in ("conf", "lib"):
        shutil.copytree(CHECKOUT / folder, copy / folder)
    if (CHECKOUT / ".cache" / "jars.conf").exists():
        shutil.copytree(CHECKOUT / ".cache", copy / ".cache", ignore=shutil.ignore_patterns("home", "lock"))
    (copy / "jobs").mkdir()
    (copy / "jobs" / "where.py").write_text(JOB)
    site = copy / ".venv" / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    for name in PACKAGES:
        if (SITE / name).is_dir():
            shutil.copytree(SITE / name, site / name, copy_function=link_or_copy)
        elif (SITE / name).exists():
            link_or_copy(str(SITE / name), str(site / name))
    for metadata in SITE.glob("*.dist-info"):
        shutil.copytree(metadata, site / metadata.name)
    (copy / ".venv" / "bin").mkdir()
    (copy / ".venv" / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    shutil.copy2(Path(sys.prefix) / "pyvenv.cfg", copy / ".venv")
    shutil.copy2(copy / "conf" / "requirements.txt", copy / ".venv")
    return copy


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """This process's variables less Spark's, on the loopback address."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK", "PYSPARK", "PYTHON"))}
    return kept | {"SPARK_LOCAL_IP": "127.0.0.1"}


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[str]:
    """URL of a master with two workers, each with one core and one GPU, which a stand-in of nvidia-smi claims."""
    scratch = tmp_path_factory.mktemp("cluster")
    nvidia_smi = scratch / "bin" / "nvidia-smi"
    nvidia_smi.parent.mkdir()
    nvidia_smi.write_text("#!/bin/sh\necho 0\n")
    nvidia_smi.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"spark://127.0.0.1:{port}"
    daemon = environment | {
        "SPARK_HOME": str(SITE / "pyspark"),
        "SPARK_DAEMON_MEMORY": "256m",
        "PATH": f"{nvidia_smi.parent}:{environment['PATH']}",
        "SPARK_WORKER_OPTS": "-Dspark.worker.resource.gpu.amount=1 "
        f"'-Dspark.worker.resource.gpu.discoveryScript={CHECKOUT / 'conf' / 'find_gpus.sh'}'",
    }
    processes: list[subprocess.Popen[bytes]] = []

    def start(name: str, main: str, *options: str) -> None:
        command = [str(SITE / "pyspark" / "bin" / "spark-class"), f"org.apache.spark.deploy.{main}", *options]
        command += ["--host", "127.0.0.1", "--webui-port", "0"]
        with (scratch / f"{name}.log").open("wb") as log:
            processes.append(subprocess.Popen(command, env=daemon, stdout=log, stderr=log))

    try:
        start("master", "master.Master", "--port", str(port))
        wait_for(port)
        for worker in ("one", "two"):
            work = scratch / worker
            start(worker, "worker.Worker", "--cores", "1", "--memory", "1g", "--work-dir", str(work), url)
        yield url
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(timeout=30)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"no master on port {port}")


def test_a_packed_job_runs_on_every_worker_with_a_gpu_each(
    checkout: Path, master: str, environment: dict[str, str], tmp_path: Path
) -> None:
    script = str(checkout / "spark-submit.sh")
    unpacked = subprocess.run([script, "where", "--master", master], env=environment, capture_output=True, text=True)
    assert unpacked.returncode == 1
    assert "make it with ./spark-submit.sh pack" in unpacked.stderr
    subprocess.run([script, "pack"], env=environment, check=True, timeout=300)

    root = tmp_path / "root"
    memory = "spark.executor.memory=512m spark.executor.memoryOverhead=256m"
    share = "spark.executor.cores=1 spark.task.resource.gpu.amount=1 spark.cores.max=2"
    ready = "spark.scheduler.minRegisteredResourcesRatio=1 spark.scheduler.maxRegisteredResourcesWaitingTime=120s"
    command = [script, "where", "--set", f"root={root}", "--master", master, "--"]
    for setting in f"{memory} {share} {ready}".split():
        command += ["--conf", setting]
    job = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)

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
