"""Images and manifest rows that can't be taken, each with what a catalog must say of it."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lookalike import reasons


@dataclass(frozen=True)
class Damaged:
    """A bad row: `content` is its file's bytes (None: no file), and other fields stand in for the manifest's."""

    name: str
    problem: str
    content: bytes | None
    product_id: str = "damaged"
    category: str = "home/vases"
    has_uri: bool = True


def damaged(rng: np.random.Generator) -> list[Damaged]:
    """One of each kind of damage; `problem` is the reason for which it must be rejected."""
    jpeg, png, webp = (_picture(rng, kind) for kind in ("JPEG", "PNG", "WEBP"))
    fine = jpeg
    return [
        Damaged("truncated.jpg", reasons.TRUNCATED.text, jpeg[: len(jpeg) // 2]),
        Damaged("truncated.png", reasons.TRUNCATED.text, png[: len(png) * 2 // 3]),
        Damaged("truncated.webp", reasons.TRUNCATED.text, webp[: len(webp) // 2]),
        Damaged("header-only.jpg", reasons.TRUNCATED.text, jpeg[:40]),
        Damaged("text.jpg", reasons.NOT_AN_IMAGE.text, b"This is no picture, whatever its name says.\n"),
        Damaged("error-page.png", reasons.NOT_AN_IMAGE.text, b"<!doctype html><title>404 Not Found</title>\n"),
        Damaged("noise.webp", reasons.NOT_AN_IMAGE.text, rng.bytes(2048)),
        Damaged("empty.jpg", reasons.ZERO_BYTES.text, b""),
        Damaged("empty.png", reasons.ZERO_BYTES.text, b""),
        Damaged("pixel.png", reasons.TOO_SMALL.text, _encoded(Image.new("RGB", (1, 1), (255, 255, 255)), "PNG")),
        Damaged("sliver.jpg", reasons.TOO_SMALL.text, _encoded(Image.new("RGB", (400, 6), (90, 120, 80)), "JPEG")),
        Damaged(
            "coming-soon.png", reasons.ONE_COLOUR.text, _encoded(Image.new("RGB", (600, 600), (238, 238, 238)), "PNG")
        ),
        Damaged("white.jpg", reasons.ONE_COLOUR.text, _encoded(Image.new("RGB", (500, 500), (255, 255, 255)), "JPEG")),
        Damaged("bomb.png", reasons.TOO_MANY_PIXELS.text, _encoded(Image.new("1", (16_000, 12_000), 1), "PNG")),
        Damaged("missing.jpg", reasons.NOT_FOUND.text, None),
        Damaged("no-uri.jpg", reasons.NO_URI_NO_CONTENT.text, None, has_uri=False),
        Damaged("no-product.jpg", reasons.NO_PRODUCT_ID.text, fine, product_id=""),
        Damaged("no-category.jpg", reasons.NO_CATEGORY.text, fine, category=""),
        Damaged("dots.jpg", reasons.MALFORMED_CATEGORY.text, fine, category="home/../vases"),
        Damaged("slashes.jpg", reasons.MALFORMED_CATEGORY.text, fine, category="/home//vases"),
    ]


def _picture(rng: np.random.Generator, kind: str) -> bytes:
    coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    return _encoded(coarse.resize((480, 480), Image.Resampling.BICUBIC), kind)


def _encoded(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()
