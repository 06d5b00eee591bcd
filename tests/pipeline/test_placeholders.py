"""Catalogs in which one picture stands for many products: it is told, and left out of similar items by a setting."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from tests import catalogs

LEFT_OUT = "similar_items.leave_out_placeholders=true"
TITLES = ("Blue vase", "Oak table", "Wool scarf", "Garden hose", "Silver ring", "Running shoe")


def coming_soon(side_px: int, kind: str, **options: Any) -> bytes:
    """The same picture, of another size and encoding."""
    image = Image.new("RGB", (600, 600), "#eee")
    draw = ImageDraw.Draw(image)
    draw.rectangle((150, 150, 450, 350), outline="#777", width=12)
    draw.ellipse((250, 200, 350, 300), fill="#999")
    file = io.BytesIO()
    image.resize((side_px, side_px), Image.Resampling.LANCZOS).save(file, kind, **options)
    return file.getvalue()


PLACEHOLDERS = (
    *(coming_soon(600, "JPEG", quality=90), coming_soon(600, "JPEG", quality=60), coming_soon(500, "PNG")),
    *(coming_soon(400, "JPEG", quality=85), coming_soon(600, "WEBP", quality=85), coming_soon(600, "PNG")),
)


def row(product_id: str, category: str, title: str, content: bytes, view: int = 0) -> catalogs.Row:
    return {
        **{"image_id": f"{product_id}-{view}", "product_id": product_id, "category": category},
        **{"title": title, "content": content},
    }


def catalog() -> list[catalogs.Row]:
    """Six products with a placeholder, in three categories; six offers of one product; others with their pictures.

    One of these has the placeholder beside a picture of its own.
    """
    categories = ("shop/a", "shop/a", "shop/b", "shop/b", "soon", "soon")
    rows = [
        row(f"soon-{n}", category, title, content)
        for n, (category, title, content) in enumerate(zip(categories, TITLES, PLACEHOLDERS, strict=True))
    ]
    rows += [row(f"offer-{n}", "shop/a", f"Red lamp, seller {n}", catalogs.picture(1)) for n in range(6)]
    rows += [row(f"own-{n}", "shop/b", f"Thing {n}", catalogs.picture(100 + n)) for n in range(6)]
    rows += [row(f"other-{n}", "shop/c", f"Other {n}", catalogs.picture(200 + n)) for n in range(6)]
    rows.append(row("own-0", "shop/b", "Thing 0", PLACEHOLDERS[0], view=1))
    return rows


@pytest.fixture(scope="module")
def published(
    spark_session: object,  # noqa: ARG001
    small_model: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path, catalogs.Ended]:
    folder = tmp_path_factory.mktemp("placeholders")
    manifest = catalogs.write_manifest(folder / "manifest.parquet", catalog())
    return folder / "root", manifest, catalogs.run("pipeline", folder / "root", manifest, small_model)


def similar(root: Path) -> set[tuple[str, str]]:
    live = set(catalogs.live(root).items())
    rows = (row for row in catalogs.table(root, "similar_items") if (row["category"], row["version"]) in live)
    return {(row["product_id"], row["similar_product_id"]) for row in rows}


def test_placeholders_are_told_and_left_out_by_a_setting(
    published: tuple[Path, Path, catalogs.Ended], small_model: list[str]
) -> None:
    root, manifest, ended = published
    assert ended.code == 0, ended.err
    soon = {f"soon-{n}" for n in range(6)}
    rows = catalogs.table(root, "placeholders")
    assert {row["product_id"] for row in rows} == soon
    assert len({row["placeholder"] for row in rows}) == 1
    assert catalogs.last_run(root)["placeholders"] == {"placeholders": 1, "products": 6}
    assert "one picture stands for 6 products" in ended.out
    page = (root / "report.html").read_text(encoding="utf-8")
    assert "1 picture stands for 6 products of different titles" in " ".join(page.split())
    assert "0.2500" in page  # 6 of 24 products, held against gate.max_placeholders
    status = catalogs.run("status", root, manifest, small_model)
    (line,) = (line for line in status.out.splitlines() if "shop/b" in line)
    assert "placeholders" in status.out
    assert line.split("│")[-2].strip() == "2"
    (line,) = (line for line in status.out.splitlines() if "soon-0, soon-5" in line)
    assert line.split("│")[1].strip() == "6"
    assert ("soon-0", "soon-1") in similar(root)

    before, built = catalogs.live(root), catalogs.versions(root)
    again = catalogs.run("pipeline", root, manifest, small_model)
    assert (again.code, catalogs.versions(root)) == (0, built)

    without = catalogs.run("pipeline", root, manifest, [*small_model, LEFT_OUT, "gate.max_churn=1.0"])
    assert without.code == 0, without.err
    after = catalogs.live(root)
    assert {category for category in after if after[category] != before[category]} == {"shop/a", "shop/b", "soon"}
    pairs = similar(root)
    assert not {product for pair in pairs for product in pair} & soon
    assert {("offer-0", "offer-1"), ("own-0", "own-1"), ("other-0", "other-1")} <= pairs
    coverage = [
        row for row in catalogs.table(root, "evaluations") if row["metric"] == "coverage" and row["category"] != "soon"
    ]
    assert {row["value"] for row in coverage} == {1.0}
    assert "left out of similar items" in " ".join((root / "report.html").read_text(encoding="utf-8").split())

    built = catalogs.versions(root)
    again = catalogs.run("pipeline", root, manifest, [*small_model, LEFT_OUT])
    assert (again.code, catalogs.versions(root)) == (0, built)


@pytest.mark.usefixtures("spark")
def test_a_gate_on_placeholders(published: tuple[Path, Path, catalogs.Ended], small_model: list[str]) -> None:
    root, manifest, _ = published
    settings = [*small_model, "gate.max_placeholders=0.2"]
    held = catalogs.run("pipeline", root, manifest, settings, ["--full"])
    assert held.code == 3
    assert "all together: placeholders is 0.2500, must be <= 0.2000" in held.error
