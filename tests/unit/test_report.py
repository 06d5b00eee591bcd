import base64
import io
import subprocess
import sys
import zipfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from tests.report_pages import EMPTY, LONG, MEASURED, MODEL_ID, ORDINARY, RETRAINED, STRAINED, picture_count

import lookalike
from lookalike import formats
from lookalike.report.page import (
    Gate,
    GateCheck,
    Placeholder,
    PlaceholderProduct,
    Placeholders,
    RejectExample,
    RejectReason,
    render,
)
from lookalike.report.thumbnails import make_thumbnail

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"


class Outline(HTMLParser):
    """Tags with their attributes, and the text of the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(uri: str) -> Image.Image:
    kind, _, text = uri.partition(",")
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_everything_shown_is_escaped() -> None:
    match = replace(ORDINARY.queries[0].matches[0], title=HOSTILE, product_id=HOSTILE, picture=HOSTILE)
    query = replace(
        ORDINARY.queries[0], title=HOSTILE, product_id=HOSTILE, category=HOSTILE, picture=HOSTILE, matches=(match,)
    )
    category = replace(ORDINARY.categories[0], category=HOSTILE, factory=HOSTILE, version=HOSTILE, state=HOSTILE)
    page = replace(
        ORDINARY,
        catalog=HOSTILE,
        root=HOSTILE,
        run_id=HOSTILE,
        model=HOSTILE,
        model_id=HOSTILE,
        gate=Gate("gate failed", (GateCheck(HOSTILE, 0.1, 0.2, holds=False, category=HOSTILE),)),
        queries=(query,),
        categories=(category,),
        rejects=(RejectReason(HOSTILE, 1, (RejectExample(HOSTILE, HOSTILE),)),),
        placeholders=Placeholders(1, 5, (Placeholder(HOSTILE, 5, (PlaceholderProduct(HOSTILE, HOSTILE),)),)),
        stages=(replace(ORDINARY.stages[0], stage=HOSTILE),),
    )
    html = render(page)
    outline = Outline(html)
    assert "<script" not in html
    assert [image["src"] for image in outline.all("img")] == [HOSTILE] * 3
    assert not any(name.startswith("on") for _, attributes in outline.tags for name in attributes)
    assert outline.text.count("<script>alert(1)") >= 17


def test_no_secret_reaches_the_page() -> None:
    uri = "s3a://AKIA:5ecret@media/spring?token=5ecret"
    example = RejectExample("b7.jpg", f"{uri}/{'x' * 200}")
    rejects = (RejectReason(f"unreadable uri {uri}", 1, (example,)),)
    html = render(replace(ORDINARY, catalog=uri, root=uri, model=uri, rejects=rejects))
    assert "media/spring" in html
    assert "5ecret" not in html
    assert "AKIA" not in html


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formats.count(1_234_567), "1,234,567"),
        (formats.count(None), formats.NOTHING),
        (formats.share(0.98765), "0.988"),
        (formats.share(1.0), "1.000"),
        (formats.share(0.99997), ">0.999"),
        (formats.share(0.0), "0.000"),
        (formats.share(0.0001), "<0.001"),
        (formats.share(-0.25), "\u22120.250"),
        (formats.share(0.94996, 4), "0.9500"),
        (formats.share(None), formats.NOTHING),
        (formats.share(float("nan")), formats.NOTHING),
        (formats.rate(19.74), "19.7"),
        (formats.rate(0.5), "0.5"),
        (formats.rate(12_345.6), "12,346"),
        (formats.rate(None), formats.NOTHING),
        (formats.rate(float("inf")), formats.NOTHING),
        (formats.duration(0.42), "0.4 s"),
        (formats.duration(9.96), "10 s"),
        (formats.duration(99.4), "99 s"),
        (formats.duration(99.6), "1 min 40 s"),
        (formats.duration(3_599.7), "1 h 00 min"),
        (formats.duration(8_040), "2 h 14 min"),
        (formats.duration(None), formats.NOTHING),
        (formats.size(999), "999 B"),
        (formats.size(1_000), "1.0 kB"),
        (formats.size(999_499), "999 kB"),
        (formats.size(999_600), "1.0 MB"),
        (formats.size(9_300_000), "9.3 MB"),
        (formats.size(12 * 10**9), "12 GB"),
        (formats.size(1_234 * 10**12), "1,234.0 TB"),
        (formats.size(None), formats.NOTHING),
        (formats.moment(datetime(2026, 11, 21, 10, 14, tzinfo=timezone(timedelta(hours=2)))), "2026-11-21 08:14 UTC"),
        (formats.moment(datetime(2026, 11, 21, 10, 14)), "2026-11-21 10:14 UTC"),
        (
            formats.reason_counts([("truncated or damaged", 1_200), ("deleted", 1)]),
            "1,200 truncated or damaged; 1 deleted",
        ),
        (formats.reason_counts([]), ""),
        (formats.iso(datetime(2026, 11, 21, 10, 14, 5, 7, tzinfo=UTC)), "2026-11-21T10:14:05+00:00"),
    ],
)
def test_formats(written: str, expected: str) -> None:
    assert written == expected


@pytest.mark.parametrize("length", [1, 2, 71, 72, 73, 300])
def test_shortened_keeps_both_ends(length: int) -> None:
    text = "".join(chr(ord("a") + i % 26) for i in range(length))
    short = formats.shorten(text)
    head, _, tail = short.partition("…")
    assert len(short) == min(length, 72)
    assert text.startswith(head)
    assert text.endswith(tail)
    assert (short == text) == (length <= 72)


def test_ordinary_page_shows_its_figures() -> None:
    text = Outline(render(ORDINARY)).text
    for figure in (
        "12,509",
        "4,327",
        "12,449 embedded",
        "46 reused",
        "14 rejected",
        "41 s",
        "0.993",
        "0.990\u20130.996",
    ):
        assert figure in text
    for figure in ("IVF64,SQ8", "9.3 MB", "8534f457", "Exact match", "0.898", "3,984", "Published", "≥ 0.95"):
        assert figure in text
    assert "None" not in text


def test_failed_gate_names_what_fails() -> None:
    page = replace(ORDINARY, gate=Gate("gate failed", (GateCheck("coverage", 0.9, 0.99, holds=False, category="a/b"),)))
    text = " ".join(Outline(render(page)).text.split())
    assert "Gate failed" in text
    assert "coverage is 0.9000, wanted ≥ 0.99 in a/b" in text
    assert "Published" not in text


def test_withdrawn_categories_are_told() -> None:
    text = " ".join(Outline(render(replace(ORDINARY, gate=Gate("published", withdrawn=1_200)))).text.split())
    assert "Published Services read it now. Categories without images, withdrawn: 1,200." in text
    assert "Every limit holds" not in text


def test_what_was_not_measured_is_a_dash() -> None:
    text = Outline(render(EMPTY)).text
    assert formats.NOTHING in text
    assert "None" not in text.replace("None: every manifest row gave an embedding.", "")
    assert "nan" not in text


def test_every_picture_has_words_and_every_header_a_scope() -> None:
    outline = Outline(render(STRAINED))
    pictures = outline.all("img")
    assert len(pictures) == picture_count(STRAINED)
    assert all(picture["alt"] for picture in pictures)
    assert all(header.get("scope") in ("row", "col") for header in outline.all("th"))
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [attributes["aria-labelledby"] for _, attributes in outline.tags if "aria-labelledby" in attributes]
    assert set(named) <= set(ids)
    assert LONG in outline.text


def test_score_bar_stays_inside_its_track() -> None:
    matches = tuple(replace(ORDINARY.queries[0].matches[0], score=score) for score in (-0.5, 0.25, 1.0000001, None))
    outline = Outline(render(replace(ORDINARY, queries=(replace(ORDINARY.queries[0], matches=matches),), stages=())))
    styles = [span["style"] or "" for span in outline.all("span") if "style" in span]
    widths = [style for style in styles if style.startswith("width:")]
    assert widths == ["width:0%", "width:25.0%", "width:100%", "width:0%"]


def test_renders_from_a_zip_without_spark_or_torch(tmp_path: Path) -> None:
    package = Path(lookalike.__file__).parent
    archive = tmp_path / "lookalike.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in package.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                file.write(path, Path("lookalike") / path.relative_to(package))
    (tmp_path / "program.py").write_text(
        "import sys, datetime\n"
        f"sys.path.insert(0, {str(archive)!r})\n"
        "from lookalike.report import page, thumbnails\n"
        f"assert page.__file__.startswith({str(archive)!r})\n"
        "headline = page.Headline(1, 1, 1, 1, 0, 0, page.Quality(), None)\n"
        "now = datetime.datetime.now(datetime.UTC)\n"
        "print(page.render(page.ReportPage('Spring', 'r', 'i', now, 'm', 'd', headline, page.Gate('unchanged'))))\n"
        "assert not {'pyspark', 'torch'} & set(sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-I", tmp_path / "program.py"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "Unchanged" in ran.stdout
    assert "object-fit: contain" in ran.stdout


def test_thumbnail_is_upright_small_and_without_metadata() -> None:
    picture = Image.new("RGB", (400, 200), "white")
    picture.paste("red", (0, 0, 200, 200))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned right: the left half becomes the top
    exif[0x010E] = "where it was taken"
    small = decoded(make_thumbnail(encoded(picture, "JPEG", exif=exif, quality=95), 100))
    assert small.size == (50, 100)
    pixels = np.asarray(small.convert("RGB"))
    np.testing.assert_allclose(pixels[20, 25], (255, 0, 0), atol=12)
    np.testing.assert_allclose(pixels[80, 25], (255, 255, 255), atol=12)
    assert not small.getexif()
    assert "exif" not in small.info


@pytest.mark.parametrize(
    ("content", "color"),
    [
        (encoded(Image.new("RGBA", (60, 40), (0, 0, 0, 0))), (255, 255, 255)),
        (encoded(Image.new("RGBA", (60, 40), (0, 0, 0, 128))), (127, 127, 127)),
        (encoded(Image.new("LA", (60, 40), (0, 0))), (255, 255, 255)),
        (encoded(Image.new("RGB", (60, 40), "red").quantize(), "GIF"), (255, 0, 0)),
        (encoded(Image.new("CMYK", (60, 40), (0, 255, 255, 0)), "JPEG"), (255, 0, 0)),
        (encoded(Image.fromarray(np.full((40, 60), 32_768, np.uint16))), (128, 128, 128)),
        (encoded(Image.new("1", (60, 40), 1)), (255, 255, 255)),
    ],
    ids=["clear", "half clear", "grey and alpha", "palette", "cmyk", "16 bits", "1 bit"],
)
def test_thumbnail_of_every_kind_of_picture(content: bytes, color: tuple[int, int, int]) -> None:
    small = decoded(make_thumbnail(content, 30)).convert("RGB")
    assert small.size == (30, 20)
    np.testing.assert_allclose(np.asarray(small)[10, 15], color, atol=6)


def test_thumbnail_never_enlarges() -> None:
    assert decoded(make_thumbnail(encoded(Image.new("RGB", (20, 10))), 300)).size == (20, 10)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "content",
    [b"", b"no picture", encoded(Image.effect_noise((300, 300), 50))[:2_000], encoded(Image.new("1", (20_000, 6_000)))],
    ids=["empty", "not an image", "truncated", "too many pixels"],
)
def test_what_is_no_picture_gives_a_drawing(content: bytes) -> None:
    uri = make_thumbnail(content, 120)
    kind, _, drawing = uri.partition(",")
    assert kind == "data:image/svg+xml"
    assert unquote(drawing).startswith('<svg xmlns="http://www.w3.org/2000/svg" width="120"')


def test_answers_to_photos_stand_beside_other_models_with_their_intervals() -> None:
    text = " ".join(Outline(render(MEASURED)).text.split())
    assert "Answers to photos" in text
    assert "photos.parquet" in text
    assert "all queries product timm/before before-1 1,289 0.431 0.390\N{EN DASH}0.470 0.431" in text
    assert f"all queries product default {MODEL_ID} 1,289 0.431" in text
    assert f"women/dresses product default {MODEL_ID} 2 1.000 \N{EN DASH} 1.000" in text
    assert "Right, after 100" in text
    assert "Right, place 37" in text
    assert "This run only measured it." in text
    assert "Answers to photos" not in render(ORDINARY)


def test_photos_shown_are_escaped() -> None:
    assert MEASURED.evaluation
    line = replace(MEASURED.evaluation.lines[0], group=HOSTILE, model=HOSTILE, model_id=HOSTILE, relevant=HOSTILE)
    failure = MEASURED.evaluation.failures[0]
    match = replace(failure.wanted, title=HOSTILE, product_id=HOSTILE, picture=HOSTILE)
    query = replace(
        failure.query, title=HOSTILE, product_id=HOSTILE, category=HOSTILE, picture=HOSTILE, matches=(match,)
    )
    hostile = replace(
        MEASURED.evaluation, queries=HOSTILE, lines=(line,), failures=(replace(failure, query=query, wanted=match),)
    )
    page = render(replace(MEASURED, evaluation=hostile))
    assert "<script>" not in page
    assert Outline(page).all("script") == []
    assert "onerror" not in {name for _, attributes in Outline(page).tags for name in attributes}


def test_a_new_model_stands_beside_the_one_before_and_its_training() -> None:
    text = " ".join(Outline(render(RETRAINED)).text.split())
    assert "Before before-1 0.993 0.990\N{EN DASH}0.996 0.101 0.080\N{EN DASH}0.130" in text
    assert f"After {RETRAINED.model_id} 0.993 0.990\N{EN DASH}0.996 0.149" in text
    assert "epoch 1 is the model" in text
    assert "0 \N{EN DASH} 0.210 0.610 1 the model 3.12 0.270 0.660 2 2.50 0.260 0.640" in text
    lists = [tag["aria-label"] for tag in Outline(render(RETRAINED)).all("ol")]
    assert lists == ["After: similar to Messenger bag", "Before: similar to Messenger bag"]
    for section in ("Before and after", "Training"):
        assert section in text
        assert section not in render(ORDINARY)


def test_placeholders_are_shown_with_picture_count_and_products() -> None:
    text = " ".join(render(ORDINARY).split())
    section = text[text.index('id="placeholders"') : text.index('id="rejects-title"')]
    assert "2 pictures stand for 1,207 products" in section
    assert section.count("<img src=") == 2
    for words in ("1,200 products", "B7", "Track tote", "B8", "7 products", "Sun hat"):
        assert words in section
    assert "leaves them out" in section
    assert ORDINARY.placeholders
    left_out = replace(ORDINARY, placeholders=replace(ORDINARY.placeholders, left_out=True))
    assert "are left out of similar items" in render(left_out)
    assert 'id="placeholders"' not in render(replace(ORDINARY, placeholders=None))
