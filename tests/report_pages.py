"""Pages to render: an ordinary one, one of a run that gave nothing, one of everything that strains a layout."""

import io
from dataclasses import replace
from datetime import UTC, datetime

from PIL import Image

from lookalike.report.page import (
    CategoryFigures,
    Comparison,
    Epoch,
    Estimate,
    Failure,
    Gate,
    GateCheck,
    Headline,
    Match,
    Placeholder,
    PlaceholderProduct,
    Placeholders,
    Quality,
    QueryEvaluation,
    QueryFigures,
    QueryRow,
    RejectExample,
    RejectReason,
    ReportPage,
    StageFigures,
    Training,
)
from lookalike.report.thumbnails import make_thumbnail


def picture(color: str, size: tuple[int, int] = (80, 120)) -> str:
    encoded = io.BytesIO()
    Image.new("RGB", size, color).save(encoded, "PNG")
    return make_thumbnail(encoded.getvalue(), 100)


def picture_count(page: ReportPage) -> int:
    failures = page.evaluation.failures if page.evaluation else ()
    rows = [*page.queries, *(failure.query for failure in failures)]
    curves = 1 if page.training else 0
    placeholders = page.placeholders.shown if page.placeholders else ()
    similar = sum(1 + len(row.matches) + len(row.before) for row in rows)
    return similar + len(failures) + curves + len(placeholders)


QUALITY = Quality(
    Estimate(0.9931, 0.9904, 0.9955), Estimate(0.149, 0.113, 0.194), Estimate(0.446), Estimate(0.557), Estimate(0.9965)
)

MATCHES = (
    Match("seller-7/B1", "Messenger bag", picture("black"), 1.0, exact=True),
    Match("B2", "Field messenger", picture("grey"), 0.8984),
    Match("B3", "Track tote", picture("green", (150, 60)), 0.7293),
)

ORDINARY = ReportPage(
    catalog="Spring",
    root="s3a://media/catalogs/spring",
    run_id="20261121T101204-7f3a",
    finished_at=datetime(2026, 11, 21, 10, 14, tzinfo=UTC),
    model="tf_efficientnet_lite0",
    model_id="3f9c2a7be01d44d8",
    headline=Headline(12_509, 4_327, 2, 12_449, 46, 14, QUALITY, 41.3),
    gate=Gate("published", (GateCheck("knn_recall@10", 0.9812, 0.95, holds=True, category="gear/bags"),)),
    queries=(QueryRow("B1", "Messenger bag", "gear/bags", picture("navy"), MATCHES),),
    categories=(
        CategoryFigures("gear/bags", 1_600, 900, QUALITY, "IVF64,SQ8", 1, 9_300_000, "8534f45738d048ec", "published"),
    ),
    rejects=(RejectReason("not an image", 14, (RejectExample("b7.jpg", "s3a://media/incoming/b7.jpg"),)),),
    placeholders=Placeholders(
        2,
        1_207,
        (
            Placeholder(
                picture("silver"), 1_200, (PlaceholderProduct("B7", "Track tote"), PlaceholderProduct("B8", None))
            ),
            Placeholder(picture("gold"), 7, (PlaceholderProduct("S1", "Sun hat"),)),
        ),
    ),
    stages=(StageFigures("ingest", 3.14, 12_509, 3_984.0), StageFigures("publish", 1.7, None, None)),
)

METRICS = ("recall@1", "recall@5", "recall@10", "recall@20", "map@r", "ndcg@10")
MODEL_ID = "efficientnet_lite0-bc9955f1b74e"
LINE = QueryFigures("product", "all queries", "default", MODEL_ID, True, 1_289, (Estimate(0.431, 0.39, 0.47),) * 6)
BAG = QueryRow("photo-7", "Messenger bag", "gear/bags", picture("teal"), MATCHES)
TOTE = QueryRow("photo-8", "Tote", "", picture("pink"), MATCHES[:1])

MEASURED = replace(
    ORDINARY,
    gate=Gate("live"),
    evaluation=QueryEvaluation(
        "photos.parquet",
        METRICS,
        (
            replace(LINE, model="timm/before", model_id="before-1", current=False),
            LINE,
            replace(LINE, group="women/dresses", n=2, estimates=(Estimate(1.0),) * 6),
        ),
        100,
        (
            Failure(BAG, replace(MATCHES[1], right=True), None),
            Failure(TOTE, replace(MATCHES[2], right=True), 37),
        ),
    ),
)

RETRAINED = replace(
    ORDINARY,
    comparison=Comparison("before-1", 2, replace(QUALITY, recall_at_1=Estimate(0.101, 0.08, 0.13)), QUALITY),
    queries=(replace(ORDINARY.queries[0], before=MATCHES[1:]),),
    training=Training(
        (
            Epoch(0, None, {"product": 0.21, "$category": 0.61}),
            Epoch(1, 3.117, {"product": 0.27, "$category": 0.66}),
            Epoch(2, 2.5, {"product": 0.26, "$category": 0.64}),
        ),
        1,
    ),
)

EMPTY = replace(
    ORDINARY,
    headline=Headline(0, 0, 0, 0, 0, 0, Quality(), None),
    gate=Gate("gate failed", (GateCheck("coverage", None, 0.99, holds=False),)),
    queries=(),
    categories=(CategoryFigures("gear/bags", 0, 0, Quality(), None, None, None, None, "empty"),),
    rejects=(),
    placeholders=None,
    stages=(StageFigures("ingest", None, 0, None),),
)

LONG = "Überlänge" + "x" * 160
ARABIC = "فستان سهرة طويل من الحرير الأسود مع تطريز ذهبي"

LONG_MATCHES = tuple(replace(match, title=LONG, product_id=LONG) for match in MATCHES * 7)

STRAINED = replace(
    ORDINARY,
    catalog=LONG,
    root="hdfs://namenode/" + "r" * 200,
    run_id="z" * 90,
    model="torchvision/" + "m" * 80,
    gate=Gate("gate failed", tuple(GateCheck(LONG, 0.9, 0.95, holds=False, category=LONG) for _ in range(20))),
    queries=(
        QueryRow(LONG, LONG, LONG, picture("navy"), LONG_MATCHES, LONG_MATCHES),
        QueryRow("W1", ARABIC, "نساء/فساتين", picture("red"), (Match("W2", ARABIC, picture("blue"), None),)),
        QueryRow("W3", None, "women/dresses", make_thumbnail(b"no picture", 100), ()),
    ),
    evaluation=QueryEvaluation(
        LONG,
        METRICS,
        tuple(replace(LINE, group=LONG, model=LONG, model_id=LONG, n=10**9) for _ in range(60)),
        100,
        (Failure(QueryRow(LONG, LONG, LONG, picture("navy"), MATCHES * 3), replace(MATCHES[0], title=LONG), 10**5),),
    ),
    comparison=Comparison(LONG, 10**6, QUALITY, QUALITY),
    training=Training(tuple(Epoch(n, 1e6, {LONG: 0.5, ARABIC: 0.25}) for n in range(60)), 59),
    categories=tuple(
        replace(ORDINARY.categories[0], category=f"{LONG if n % 2 else ARABIC}/{n}", factory=LONG, version=LONG)
        for n in range(200)
    ),
    rejects=(RejectReason(LONG, 12_345_678, (RejectExample(LONG, "file:///" + "p" * 300), RejectExample(None, None))),),
    stages=(StageFigures(LONG, 123_456.0, 10**12, 1e9),),
)
