"""Input that a run can't work with: one clear error before any work, and nothing published is touched."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests import catalogs
from tests.conftest import CHECKOUT
from tests.pipeline.conftest import Shop

Untouched = Callable[[Path], Callable[[], None]]

ROW = {"image_id": "i", "product_id": "p", "category": "c", "uri": "file:///x.jpg"}


def without(name: str) -> pa.Table:
    return pa.Table.from_pylist([{key: value for key, value in ROW.items() if key != name}])


MANIFESTS = {
    "missing column": (without("product_id"), ["product_id: missing"]),
    "no image column": (without("uri"), ["uri, content: both missing"]),
    "misspelt columns": (
        pa.table({"image_id": ["i"], "productid": ["p"], "categroy": ["c"], "uri": ["u"], "avaliable": [True]}),
        ["rename column 'productid' to 'product_id'", "'categroy' to 'category'", "'avaliable' to 'available'"],
    ),
    "wrong types": (
        pa.table({"image_id": [7], "product_id": ["p"], "category": [["c"]], "uri": ["u"], "available": ["yes"]}),
        ["image_id: is int64 in", "category: is list<element: string> in", "available: is string in"],
    ),
    "no rows": (pa.Table.from_pylist([ROW]).slice(0, 0), ["the manifest has no rows"]),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifest_with_wrong_columns(shop: Shop, tmp_path: Path, untouched: Untouched, name: str) -> None:
    table, problems = MANIFESTS[name]
    check, before = untouched(shop.root), catalogs.versions(shop.root)
    manifest = tmp_path / "manifest.parquet"
    pq.write_table(table, manifest)
    ended = catalogs.run("pipeline", shop.root, manifest, shop.settings)
    assert ended.code == 2
    assert all(problem in ended.error for problem in [str(manifest), *problems]), ended.error
    assert catalogs.versions(shop.root) == before
    check()


@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file or folder"),
        (
            b"product_id,image\n1,2\n",
            "no Parquet file, or a damaged one; of a CSV or a folder of images, make_manifest makes a manifest",
        ),
        (b"", "an empty file; write it anew"),
    ],
)
def test_manifest_that_is_no_parquet(tmp_path: Path, content: bytes | None, said: str) -> None:
    manifest = tmp_path / "manifest.parquet"
    if content is not None:
        manifest.write_bytes(content)
    ended = catalogs.run("pipeline", tmp_path / "root", manifest)
    assert ended.code == 2
    assert f"{manifest}: {said}" in ended.error
    assert len(ended.error.splitlines()) == 1


@pytest.mark.usefixtures("spark")
def test_plan_before_anything_is_ingested(tmp_path: Path) -> None:
    manifest = catalogs.write_manifest(tmp_path / "manifest.parquet", catalogs.embeddings("a", 3))
    ended = catalogs.run("plan", tmp_path / "root", manifest)
    assert ended.code == 2
    assert "root holds no catalog yet: run the pipeline first" in ended.error
    assert not (tmp_path / "root").exists()


def test_plan_of_a_category_that_is_not_there(shop: Shop) -> None:
    ended = catalogs.run("plan", shop.root, shop.manifest, shop.settings, ["--category", "Women"])
    assert ended.code == 2
    assert "no image is in Women: give categories as `status` shows them" in ended.error


def test_every_problem_of_the_settings_is_listed(tmp_path: Path) -> None:
    settings = ["index.seeed=1", "similar_items.k=0", "embed.engine=fast", "gate.min_coverage=2", "nonsense"]
    ended = catalogs.run("pipeline", tmp_path / "root", None, settings)
    assert ended.code == 2
    for problem in ["index.seeed: unknown key; did you mean index.seed?", *(s.partition("=")[0] for s in settings)]:
        assert problem in ended.error
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("content", [None, b"no model", b"PK\x03\x04 no zip either"])
def test_model_file_that_is_none(shop: Shop, tmp_path: Path, untouched: Untouched, content: bytes | None) -> None:
    check = untouched(shop.root)
    path = tmp_path / "model.pt"
    if content is not None:
        path.write_bytes(content)
    model = ["model.name=torchvision/resnet18", f"model.weights={path}"]
    ended = catalogs.run("pipeline", shop.root, shop.manifest, model)
    assert ended.code == 2
    assert f"model file {path}" in ended.error
    check()


def test_root_that_cannot_be_written(tmp_path: Path) -> None:
    """Below a regular file nobody can write, not even root. Through spark-submit.sh: no other line may stand there."""
    (tmp_path / "file").write_bytes(b"")
    metrics = tmp_path / "metrics"
    settings = catalogs.options(tmp_path / "file" / "root", None, [f"metrics_file={metrics}"])
    command = [str(CHECKOUT / "spark-submit.sh"), "pipeline", *settings]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    ended = catalogs.Ended(done.returncode, done.stdout, done.stderr)
    assert ended.code == 2
    assert f"root file://{tmp_path}/file/root can't be written to" in ended.error
    java = "WARNING: Using incubator modules"  # of the JVM itself, which nothing turns off
    *events, error = [line for line in done.stderr.splitlines() if line and not line.startswith(java)]
    assert error.startswith("error: ")
    assert [json.loads(line)["event"] for line in events] == ["run started", "run ended"]
    assert re.search(r"^lookalike_run_exit_code\{.*\} 2\.0$", metrics.read_text(encoding="utf-8"), re.MULTILINE)
