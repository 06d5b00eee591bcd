"""The first run that anybody makes: no manifest, the default model; held against what is true of the sample."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from tests import catalogs
from tests.conftest import CHECKOUT

from lookalike import reader
from lookalike.sample import make_sample

# A word of truth.json, where the ledger's differs.
REASONS = {
    "truncated": "truncated or damaged",
    "not an image": "not an image (JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF)",
    "one-colour placeholder": "one colour (a placeholder)",
    "unreadable uri": "unreadable uri: not found",
}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a run through spark-submit.sh; the sample stands there already, made smaller."""
    root = tmp_path_factory.mktemp("sample") / "root"
    make_sample(root / "sample", products=24)
    command = [str(CHECKOUT / "spark-submit.sh"), "pipeline", *catalogs.options(root, None)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="module")
def truth(catalog: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((catalog / "sample" / "truth.json").read_text(encoding="utf-8"))
    return found


def test_every_planted_problem_is_found(catalog: Path, truth: dict[str, Any]) -> None:
    rejected = [row for row in catalogs.table(catalog, "images") if row["status"] == "rejected"]
    found = {(row["image_id"], row["product_id"] or "", row["reason"]) for row in rejected}
    planted = {
        (row["image_id"], row["product_id"], REASONS.get(row["reason"], row["reason"])) for row in truth["rejected"]
    }
    assert found == planted
    assert len(rejected) == len(truth["rejected"])


def test_every_good_image_is_embedded_once_whatever_its_encoding(catalog: Path, truth: dict[str, Any]) -> None:
    ledger = {row["image_id"]: row for row in catalogs.table(catalog, "images") if row["status"] != "rejected"}
    assert ledger.keys() == truth["images"].keys()
    assert len({image["encoding"] for image in truth["images"].values()}) > 5
    for copy, original in truth["duplicates"].items():
        assert ledger[copy]["content_hash"] == ledger[original]["content_hash"]
        assert {ledger[copy]["status"], ledger[original]["status"]} == {"embedded", "reused"}
    assert sum(row["status"] == "reused" for row in ledger.values()) == len(truth["duplicates"])
    contents = [row["content_hash"] for row in catalogs.table(catalog, "embeddings")]
    assert sorted(contents) == sorted({row["content_hash"] for row in ledger.values()})


def test_similar_items_are_what_the_reader_gives(catalog: Path, truth: dict[str, Any]) -> None:
    live = {row["category"] for row in catalogs.table(catalog, "publications")}
    assert live == {product["category"] for product in truth["products"].values()}
    rows = catalogs.table(catalog, "similar_items")
    for category in live:
        opened = reader.open(str(catalog), category)
        products = [p for p, product in truth["products"].items() if product["category"] == category]
        for product in products:
            own = sorted((r for r in rows if r["product_id"] == product), key=lambda row: row["rank"])
            assert [r["rank"] for r in own] == list(range(1, len(own) + 1))
            matches = opened.similar(product, 20)
            assert [(r["similar_product_id"], r["similar_image_id"]) for r in own] == [match[:2] for match in matches]
            assert [r["score"] for r in own] == pytest.approx([match.score for match in matches], abs=1e-6)
            assert {r["similar_product_id"] for r in own} == {
                other for other in products if other != product and truth["products"][other]["available"]
            }


def test_another_seller_of_the_same_pictures_comes_first(catalog: Path, truth: dict[str, Any]) -> None:
    for copy, original in truth["duplicates"].items():
        seller, product = truth["images"][copy]["product_id"], truth["images"][original]["product_id"]
        category = truth["products"][seller]["category"]
        (first,) = reader.open(str(catalog), category).similar(seller, 1)
        assert first.product_id == product or not truth["products"][product]["available"]


def test_report_stands_below_the_root(catalog: Path) -> None:
    page = (catalog / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/") > 20
    assert "truncated or damaged" in page


def test_notebook_runs_over_it(catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_ROOT", str(catalog))
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT / "lib"), prepend=os.pathsep)
    notebook: Any = nbformat.read(CHECKOUT / "notebooks" / "explore.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(CHECKOUT / "notebooks")}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = "".join(output.get("data", {}).get("text/html", "") for output in outputs)
    assert shown.count("data:image/") > 8
