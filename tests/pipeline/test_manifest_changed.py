"""A manifest that is replaced while a run works on it: nothing of the run is published."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests import catalogs

from lookalike.spark import pipeline

STAGES = ("ingest", "embed", "publish")


@pytest.mark.usefixtures("spark")
def test_nothing_is_published_of_a_manifest_that_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is replaced by one of half the rows just before a stage begins; the same command again takes the new one."""
    root, manifest = tmp_path / "root", tmp_path / "manifest.parquet"
    rows = catalogs.embeddings("women/dresses", 6)
    for stage in STAGES:  # each begins with what the run before left
        catalogs.write_manifest(manifest, rows)
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, stage, after_change(getattr(pipeline, stage), manifest, rows))
            ended = catalogs.run("pipeline", root, manifest)
        assert ended.code == 2, stage
        assert ended.error.startswith(f"file://{manifest} changed while the run was at work, so nothing was published")
        assert not (root / "tables" / "publications").exists()

    again = catalogs.run("pipeline", root, manifest)
    assert again.code == 0, again.err
    assert list(catalogs.live(root)) == ["women/dresses"]
    assert catalogs.last_run(root)["ingest"]["rows"] == len(rows) // 2


def after_change(run_stage: Callable[..., Any], manifest: Path, rows: list[catalogs.Row]) -> Callable[..., Any]:
    """`run_stage`, before which the manifest of `rows` loses the second half of them."""

    def change_and_run_stage(run: Any, *arguments: Any) -> Any:
        assert run.manifest.count() == len(rows)
        assert len(run.manifest_files.files) == 1
        catalogs.write_manifest(manifest, rows[: len(rows) // 2])
        return run_stage(run, *arguments)

    return change_and_run_stage


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
