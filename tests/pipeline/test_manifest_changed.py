"""A manifest that is replaced while a run works on it: nothing of the run is published."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests import catalogs

from lookalike.spark import pipeline

STAGES = ("ingest", "embed", "publish")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.usefixtures("spark")
def test_nothing_is_published_of_a_manifest_that_changed(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is replaced by one of half the rows just before a stage begins; the same command again takes the new one."""
    rows = catalogs.embeddings("women/dresses", 6)
    manifest = catalogs.write_manifest(tmp_path / "manifest.parquet", rows)
    run_stage: Callable[..., Any] = getattr(pipeline, stage)

    def replace_manifest(run: Any, *arguments: Any) -> Any:
        assert run.manifest.count() == len(rows)
        assert len(run.manifest_files.files) == 1
        catalogs.write_manifest(manifest, rows[:6])
        return run_stage(run, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, stage, replace_manifest)
        ended = catalogs.run("pipeline", tmp_path / "root", manifest)
    assert ended.code == 2
    assert ended.error.startswith(f"file://{manifest} changed while the run was at work, so nothing was published")
    assert not (tmp_path / "root" / "tables" / "publications").exists()

    again = catalogs.run("pipeline", tmp_path / "root", manifest)
    assert again.code == 0, again.err
    assert list(catalogs.live(tmp_path / "root")) == ["women/dresses"]


@pytest.mark.usefixtures("spark")
def test_publish_as_a_job_of_its_own_refuses_another_manifest(tmp_path: Path) -> None:
    root, rows = tmp_path / "root", catalogs.embeddings("a", 4)
    manifest = catalogs.write_manifest(tmp_path / "manifest.parquet", rows)
    for job in ("ingest", "embed", "build_index", "similar_items", "evaluate"):
        ended = catalogs.run(job, root, manifest)
        assert ended.code == 0, ended.err
    (taken,) = (row for row in catalogs.table(root, "runs") if row["stage"] == "ingest")
    catalogs.write_manifest(manifest, rows[:4])
    ended = catalogs.run("publish", root, manifest)
    assert ended.code == 2
    assert f"is not what run {taken['run_id']} took in: run ingest, then the stages after it" in ended.error
    catalogs.write_manifest(manifest, rows)
    assert catalogs.run("publish", root, manifest).code == 0
    assert list(catalogs.live(root)) == ["a"]
