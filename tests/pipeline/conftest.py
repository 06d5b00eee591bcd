"""What tests of whole jobs share: a small model, and a catalog published once."""

import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from tests import catalogs

PLAIN = "women/dresses"
SPACED = "Schöne Möbel/Tische & Stühle, 100 %"
FOREIGN = "日本 語/靴"
SINGLE = "single"
BROKEN = "nothing decodes"


@dataclass(frozen=True)
class Shop:
    """A published catalog with the odd rows that real ones have, and how the run that published it ended."""

    root: Path
    manifest: Path
    rows: list[catalogs.Row]
    reasons: dict[str, str]  # image_id -> why the row must be rejected
    settings: list[str]
    ended: catalogs.Ended

    def copied(self, folder: Path) -> "Shop":
        """A shop of one's own, at another place."""
        shutil.copytree(self.root, folder / "root")
        return Shop(folder / "root", self.manifest, self.rows, self.reasons, self.settings, self.ended)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings for a network that loads in no time; its weights are random."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "squeezenet.pt"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
    return ["model.name=torchvision/squeezenet1_1", f"model.weights={path}", "embed.engine=torch"]


@pytest.fixture(scope="session")
def shop(
    spark_session: object,  # noqa: ARG001
    small_model: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Shop:
    """Never change it: tests that write take `own_shop`."""
    folder = tmp_path_factory.mktemp("Ma boutique été") / "chaussures & sacs"
    folder.mkdir()
    rows = catalogs.images(PLAIN, 5) + catalogs.images(SPACED, 3) + catalogs.images(FOREIGN, 2)
    rows += catalogs.images(SINGLE, 1, views=1)
    rows.append({**rows[0], "image_id": "copy", "product_id": "copy"})
    reasons = {}
    for image_id, category, content, reason in [
        ("text", BROKEN, b"no picture", "not an image (JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF)"),
        ("half", BROKEN, catalogs.picture(1, side_px=300)[:1500], "truncated or damaged"),
        ("none", BROKEN, b"", "zero bytes"),
        ("bomb", PLAIN, _bomb(), "beyond the pixel limit"),
        ("up", "../escape", catalogs.picture(2), "malformed category"),
        ("around", "women/../../escape", catalogs.picture(3), "malformed category"),
    ]:
        rows.append({"image_id": image_id, "product_id": f"p-{image_id}", "category": category, "content": content})
        reasons[image_id] = reason
    manifest = catalogs.write_manifest(folder / "manifest.parquet", rows)
    root = folder / "catalog"
    return Shop(root, manifest, rows, reasons, small_model, catalogs.run("pipeline", root, manifest, small_model))


@pytest.fixture
def own_shop(shop: Shop, tmp_path: Path) -> Shop:
    return shop.copied(tmp_path)


@pytest.fixture
def untouched() -> Callable[[Path], Callable[[], None]]:
    """Remembers what a root gives its readers; what comes back asserts that it still does."""

    def remember(root: Path) -> Callable[[], None]:
        before = catalogs.answers(root)

        def check() -> None:
            assert catalogs.answers(root) == before

        return check

    return remember


def _bomb() -> bytes:
    """A PNG of few bytes that would take 450 MB as RGB."""
    file = io.BytesIO()
    Image.new("1", (15_000, 10_000)).save(file, "PNG")
    return file.getvalue()
