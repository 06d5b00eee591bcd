"""Runs that are ended half-way, by Ctrl-C or by a full disk: what is published stays, and the next run finishes."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests import catalogs
from tests.conftest import CHECKOUT, FOR_A_SHORT_JOB
from tests.pipeline.conftest import Shop

Untouched = Callable[[Path], Callable[[], None]]

NEW = "added later"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("only root can mount the small disk that this test fills")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, left_bytes: int) -> Path:
    """Take the disk's free space but for `left_bytes`."""
    ballast = disk / "ballast"
    free = os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - left_bytes)
    return ballast


def started(shop: Shop, manifest: Path, settings: list[str], *spark: str) -> "subprocess.Popen[str]":
    """The pipeline as a user starts it, in a process group of its own as a terminal makes one."""
    options = catalogs.options(shop.root, manifest, [*shop.settings, *settings])
    return subprocess.Popen(
        [str(CHECKOUT / "spark-submit.sh"), "pipeline", *options, "--", *FOR_A_SHORT_JOB, *spark],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def grown(shop: Shop, folder: Path, products: int) -> Path:
    return catalogs.write_manifest(folder / "grown.parquet", shop.rows + catalogs.images(NEW, products))


def test_ctrl_c_half_way_then_again(own_shop: Shop, tmp_path: Path, untouched: Untouched) -> None:
    check = untouched(own_shop.root)
    known = {row["content_hash"] for row in catalogs.table(own_shop.root, "embeddings")}
    before = catalogs.versions(own_shop.root)["embeddings"]
    manifest = grown(own_shop, tmp_path, 20)
    job = started(own_shop, manifest, ["embed.commit_images=5"])
    while job.poll() is None and catalogs.versions(own_shop.root)["embeddings"] < before + 2:
        time.sleep(0.2)
    assert job.poll() is None, f"the run ended before it could be stopped: {job.communicate()}"
    os.killpg(job.pid, signal.SIGINT)
    _, err = job.communicate(timeout=300)
    assert job.returncode == 130, err
    assert "stopped; finished work is kept, run the same command again to go on" in err
    assert "Traceback" not in err
    assert "ERROR" not in err
    check()
    saved = {row["content_hash"] for row in catalogs.table(own_shop.root, "embeddings")} - known
    assert 0 < len(saved) < 40

    ended = catalogs.run("pipeline", own_shop.root, manifest, own_shop.settings)
    assert ended.code == 0, ended.err
    contents = [row["content_hash"] for row in catalogs.table(own_shop.root, "embeddings")]
    assert len(contents) == len(set(contents)) == len(known) + 40
    assert catalogs.last_run(own_shop.root)["embed"]["embedded"] == 40 - len(saved)
    assert len(catalogs.answers(own_shop.root)[NEW][1]) == 20


@pytest.mark.usefixtures("spark")
def test_disk_of_the_root_full_half_way(small_disk: Path, tmp_path: Path, untouched: Untouched) -> None:
    root = small_disk / "root"
    rows = catalogs.embeddings("a", 5, dim=512)
    manifest = catalogs.write_manifest(tmp_path / "manifest.parquet", rows)
    assert catalogs.run("pipeline", root, manifest).code == 0
    check = untouched(root)
    manifest = catalogs.write_manifest(manifest, rows + catalogs.embeddings("b", 400, seed=1, dim=512))
    ballast = fill(small_disk, left_bytes=1_500_000)  # the new embeddings take 1.6 MB, and their shard 2.4 MB
    ended = catalogs.run("pipeline", root, manifest)
    assert ended.code == 1
    assert ended.error.startswith("no space left on the device")
    assert len(ended.error.splitlines()) == 1
    check()
    assert not list((root / "shards").rglob("*.tmp"))

    ballast.unlink()
    ended = catalogs.run("pipeline", root, manifest)
    assert ended.code == 0, ended.err
    assert len(catalogs.answers(root)["b"][1]) == 400


def test_disk_of_spark_full_half_way(own_shop: Shop, small_disk: Path, tmp_path: Path, untouched: Untouched) -> None:
    check = untouched(own_shop.root)
    rows = catalogs.images(NEW, 50)
    for number, row in enumerate(rows):
        row["content"] += os.urandom(400_000) + bytes([number])  # 40 MB, which no compression makes smaller
    manifest = catalogs.write_manifest(tmp_path / "large.parquet", own_shop.rows + rows)
    fill(small_disk, left_bytes=30_000_000)
    job = started(own_shop, manifest, [], "--conf", f"spark.local.dir={small_disk}")
    out, err = job.communicate(timeout=600)
    ended = catalogs.Ended(job.returncode, out, err)
    assert ended.code == 1
    assert ended.error.startswith("no space left on the device")
    assert "ERROR" not in err
    check()
