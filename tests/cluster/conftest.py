"""A standalone Spark of several processes, and a checkout from which jobs are submitted to it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.servers import CHECKOUT, HDFS_USER, SITE, S3Server, hdfs, spark_cluster

# What travels to the workers. Everything else, above all torch with gigabytes of CUDA libraries, travels as links.
PACKAGES = [
    "aiobotocore",
    "annotated_types",
    "dateutil",
    "delta",
    "faiss",
    "faiss_cpu.libs",
    "fsspec",
    "hdfs_native",
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
    "s3fs",
    "six.py",
    "typing_extensions.py",
    "typing_inspection",
    "tzdata",
    "zipp",
]


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture(scope="package")
def checkout(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """A checkout in a folder with a space in its name, with a small `.venv` of its own, packed."""
    copy = tmp_path_factory.mktemp("a checkout")
    shutil.copy2(CHECKOUT / "spark-submit.sh", copy)
    for folder in ("conf", "jobs", "lib"):
        shutil.copytree(CHECKOUT / folder, copy / folder)
    if (CHECKOUT / ".cache" / "jars.conf").exists():
        jars = shutil.ignore_patterns("home", "lock", "test-jars")
        shutil.copytree(CHECKOUT / ".cache", copy / ".cache", ignore=jars)
    site = copy / ".venv" / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    for package in SITE.iterdir():
        if package.name not in PACKAGES and package.suffix != ".dist-info":
            (site / package.name).symlink_to(package)
        elif package.is_dir():
            shutil.copytree(package, site / package.name, copy_function=link_or_copy)
        else:
            link_or_copy(str(package), str(site / package.name))
    (copy / ".venv" / "bin").mkdir()
    (copy / ".venv" / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    shutil.copy2(Path(sys.prefix) / "pyvenv.cfg", copy / ".venv")
    shutil.copy2(copy / "conf" / "requirements.txt", copy / ".venv")

    script = str(copy / "spark-submit.sh")
    unpacked = [script, "pipeline", "--master", "spark://127.0.0.1:1"]
    refused = subprocess.run(unpacked, env=environment, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "make it with ./spark-submit.sh pack" in refused.stderr
    subprocess.run([script, "pack"], env=environment, check=True, timeout=900)
    return copy


@pytest.fixture(scope="package")
def environment() -> dict[str, str]:
    """This process's variables less Spark's, on the loopback address."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK", "PYSPARK", "PYTHON"))}
    return kept | {"SPARK_LOCAL_IP": "127.0.0.1"}


@pytest.fixture(scope="package")
def cluster_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs of the master and the workers, and the workers' folders."""
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="package")
def master(cluster_folder: Path, environment: dict[str, str]) -> Iterator[str]:
    with spark_cluster(cluster_folder, environment) as url:
        yield url


@pytest.fixture(scope="package")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    with server.running():
        yield server


@pytest.fixture(scope="package")
def hdfs_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HADOOP_USER_NAME", HDFS_USER)
        with hdfs(tmp_path_factory.mktemp("hdfs")) as uri:
            yield uri
