"""The real pipeline on several processes, with its root on a local disk, on S3 and on HDFS."""

import contextlib
import csv
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from tests import catalogs
from tests.cluster.servers import CHECKOUT, HDFS_USER, S3Server, executors
from tests.conftest import FOR_A_SHORT_JOB

from lookalike import files, reader
from lookalike.errors import RootBusy
from lookalike.spark.writer_lock import WriterLock

CATEGORY = "Women/Tops/Jackets"

Row = catalogs.Row


@dataclass(frozen=True)
class Submitter:
    """Submits jobs to the cluster as a user does, with a copy of conf/cluster.toml."""

    checkout: Path
    master: str
    environment: dict[str, str]
    folder: Path

    def command(self, job: str, root: str, manifest: str, packages: bool = False) -> list[str]:
        command = [str(self.checkout / "spark-submit.sh"), job, "--config", str(self._config(packages))]
        command += ["--master", self.master, "--set", f"root={root}", "--set", f"manifest={manifest}", "--"]
        ready = "spark.scheduler.minRegisteredResourcesRatio=1 spark.scheduler.maxRegisteredResourcesWaitingTime=120s"
        sizes = "spark.executor.memory=1g spark.executor.cores=1 spark.driver.memory=1g spark.sql.shuffle.partitions=4"
        for setting in f"{ready} {sizes} spark.databricks.delta.snapshotPartitions=2".split():
            command += ["--conf", setting]
        return [*command, *FOR_A_SHORT_JOB]

    def start(self, job: str, root: str, manifest: str, packages: bool = False) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(job, root, manifest, packages),
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _config(self, packages: bool) -> Path:
        """conf/cluster.toml as its comments say: without the lines for GPUs; with those for S3, if it is on S3."""
        lines = (CHECKOUT / "conf" / "cluster.toml").read_text().splitlines()
        lines = [line for line in lines if ".gpu." not in line]
        if packages:
            lines = [line.removeprefix("# ") if "spark.jars." in line or ".s3a." in line else line for line in lines]
            lines.append(f'"spark.jars.ivy" = "{CHECKOUT / ".cache" / "ivy-s3"}"')
        config = self.folder / "my-cluster.toml"
        config.write_text("\n".join(lines))
        return config


@pytest.fixture
def submitter(checkout: Path, master: str, environment: dict[str, str], tmp_path: Path) -> Submitter:
    return Submitter(checkout, master, dict(environment), tmp_path)


def table(root: str, name: str) -> list[Row]:
    return DeltaTable(files.join(root, "tables", name)).to_pyarrow_table().to_pylist()


def wait_for_stage(job: "subprocess.Popen[str]", root: str, stage: str) -> None:
    """Until `stage` is done, so that the next one is under way."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and job.poll() is None:
        with contextlib.suppress(TableNotFoundError):
            if stage in {row["stage"] for row in table(root, "runs")}:
                return
        time.sleep(0.2)
    raise AssertionError(f"{stage} was not seen to end", job.communicate())


def kill_executor(cluster_folder: Path) -> None:
    deadline = time.monotonic() + 300
    while not (found := executors(cluster_folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(found[0], signal.SIGKILL)


def exact_neighbours(root: str, k: int) -> dict[str, list[str]]:
    """The k products nearest to each, by all pairs of the embeddings in the tables; one category."""
    vectors = {row["content_hash"]: np.asarray(row["embedding"], np.float32) for row in table(root, "embeddings")}
    rows = [row for row in table(root, "images") if row["status"] != "rejected"]
    products = sorted({row["product_id"] for row in rows})
    images = {p: np.stack([vectors[r["content_hash"]] for r in rows if r["product_id"] == p]) for p in products}
    nearest = {}
    for product in products:
        scores = {other: float((images[product] @ images[other].T).max()) for other in products if other != product}
        nearest[product] = sorted(scores, key=lambda other: -scores[other])[:k]
    return nearest


def check_catalog(root: str, category: str, rows: Sequence[Row], cache: Path) -> None:
    """What was published is whole, complete and right."""
    assert Counter(row["status"] for row in table(root, "images")) == {"embedded": len(rows)}
    catalog = reader.open(root, category, cache=cache)  # checks every shard file's sha256
    for product, nearest in exact_neighbours(root, 3).items():
        assert [match.product_id for match in catalog.similar(product, 3)] == nearest
    similar = Counter(row["product_id"] for row in table(root, "similar_items"))
    assert set(similar) == {row["product_id"] for row in rows}
    assert {row["version"] for row in table(root, "publications")} == {catalog.version}


def test_real_pictures_while_executors_are_killed(
    submitter: Submitter, shared_data: Path, tmp_path: Path, cluster_folder: Path
) -> None:
    with (shared_data / "magento" / "images.csv").open(encoding="utf-8", newline="") as file:
        found = [row for row in csv.DictReader(file) if row["category"] == CATEGORY][:24]
    images = shared_data / "magento" / "images"
    rows = [
        {
            "image_id": row["image"],
            "product_id": row["product_id"],
            "category": CATEGORY,
            "uri": f"file://{(images / row['image']).resolve()}",
        }
        for row in found
    ]
    manifest = catalogs.write_manifest(tmp_path / "manifest.parquet", rows)
    root = tmp_path / "root"
    job = submitter.start("pipeline", str(root), str(manifest))
    kill_executor(cluster_folder)
    for stage in ("ingest", "embed", "build_index", "similar_items"):  # so that the next one is under way
        wait_for_stage(job, str(root), stage)
        kill_executor(cluster_folder)
    _, err = job.communicate(timeout=600)
    assert job.returncode == 0, err
    check_catalog(str(root), CATEGORY, rows, tmp_path / "cache")
    assert (root / "report.html").stat().st_size > 0


def test_a_root_on_hdfs(submitter: Submitter, hdfs_uri: str, tmp_path: Path) -> None:
    submitter.environment["HADOOP_USER_NAME"] = HDFS_USER
    root = f"{hdfs_uri}/catalogs/shop"
    rows = catalogs.embeddings(CATEGORY, 20)
    local = catalogs.write_manifest(tmp_path / "manifest.parquet", rows)
    fs, path = files.filesystem(f"{hdfs_uri}/manifest.parquet")
    fs.put_file(str(local), path)
    job = submitter.start("pipeline", root, f"{hdfs_uri}/manifest.parquet")
    _, err = job.communicate(timeout=600)
    assert job.returncode == 0, err
    check_catalog(root, CATEGORY, rows, tmp_path / "cache")
    owners = {found["owner"] for found in fs.find("/catalogs", detail=True).values()}
    assert owners == {HDFS_USER}
    assert not [name for name in fs.find("/catalogs") if name.endswith(".tmp")]
    now = datetime.now(UTC)
    assert all(file.modified < now for file in files.list_files(root).values()), "cleanup goes by this time"


def test_a_root_on_s3_that_is_gone_for_ten_seconds(
    submitter: Submitter, s3_server: S3Server, tmp_path: Path, cluster_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
        submitter.environment[name] = value
    bucket = s3_server.bucket("shop")
    root, manifest = f"{bucket}/catalog", f"{bucket}/manifest"
    rows = catalogs.embeddings(CATEGORY, 20)
    local = catalogs.write_manifest(tmp_path / "manifest.parquet", rows)
    fs, path = files.filesystem(f"{manifest}/part.parquet")
    fs.put_file(str(local), path)
    lock = WriterLock(*files.filesystem(f"{root}/.writers"), "another")
    lock.acquire()
    refused = submitter.start("ingest", root, manifest, packages=True)
    assert "error: run another of " in refused.communicate(timeout=300)[1]
    assert refused.returncode == 1
    lock.release()

    job = submitter.start("pipeline", root, manifest, packages=True)
    wait_for_stage(job, root, "ingest")
    with pytest.raises(RootBusy):
        lock.acquire()
    s3_server.gone_for(seconds=10)
    out, err = job.communicate(timeout=600)
    assert job.returncode == 0, err
    check_catalog(root, CATEGORY, rows, tmp_path / "cache")
    assert not fs.find(files.filesystem(f"{root}/.writers")[1])

    said = [out, err]
    said += [log.read_text(errors="replace") for log in cluster_folder.rglob("*") if log.name in ("stderr", "stdout")]
    said += [log.read_text(errors="replace") for log in cluster_folder.glob("*.log")]
    assert not [text for text in said if s3_server.secret in text]
