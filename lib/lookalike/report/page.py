"""What the page shows, as plain values, and its HTML. All of it is untrusted: the template escapes everything."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Literal

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template

from lookalike import formats
from lookalike.files import redact

State = Literal["published", "unchanged", "gate failed", "live", "rolled back"]
"""What became of a run's versions."""


@dataclass(frozen=True)
class Estimate:
    """A measured share in [0, 1] with the ends of its 95 % confidence interval; None where nothing was measured."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Quality:
    """What ANN kept of exact search, what shoppers find, and the share of products that have similar items."""

    knn_recall_at_10: Estimate = Estimate()
    recall_at_1: Estimate = Estimate()
    recall_at_5: Estimate = Estimate()
    recall_at_10: Estimate = Estimate()
    coverage: Estimate = Estimate()


@dataclass(frozen=True)
class Headline:
    """The whole run: what the catalog holds, how its manifest rows ended, how good it is, how long it took.

    `of_run`: whether `embedded`, `reused` and `rejected` are of the run's rows, or else of all that are in the ledger.
    `left_out`: rows that stand for images that a complete manifest leaves out. `unheld_times`: rows whose `updated_at`
    is taken as unknown.
    """

    images: int
    products: int
    categories: int
    embedded: int
    reused: int
    rejected: int
    quality: Quality
    seconds: float | None
    of_run: bool = True
    left_out: int = 0
    unheld_times: int = 0


@dataclass(frozen=True)
class GateCheck:
    """One limit of the gate with the figure it was held against, of `category` where the limit is per category."""

    metric: str
    value: float | None
    limit: float
    holds: bool
    at_most: bool = False
    category: str | None = None


@dataclass(frozen=True)
class Gate:
    """`withdrawn`: how many categories were taken down, as no image of them is left."""

    state: State
    checks: tuple[GateCheck, ...] = ()
    withdrawn: int = 0


@dataclass(frozen=True)
class Match:
    """A similar item. `picture` is a data URI; `exact`: the same picture, as when another seller offers the product.

    `right`: it is what a query photo should have found.
    """

    product_id: str
    title: str | None
    picture: str
    score: float | None
    exact: bool = False
    right: bool = False


@dataclass(frozen=True)
class QueryRow:
    """A query product with its similar items, best first. `picture` is a data URI.

    `before`: what was similar by the model that was live before.
    """

    product_id: str
    title: str | None
    category: str
    picture: str
    matches: tuple[Match, ...]
    before: tuple[Match, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Of the `categories` that another model was live in before: how good they were with it, and how good they are."""

    model_id: str
    categories: int
    before: Quality
    now: Quality


@dataclass(frozen=True)
class Epoch:
    """Mean loss, None before training, and recall@1 on held-out pictures by kind of label."""

    number: int
    loss: float | None
    recall: Mapping[str, float]


@dataclass(frozen=True)
class Training:
    """How the model of the page was fine-tuned; `best` is the number of the epoch that it is."""

    epochs: tuple[Epoch, ...]
    best: int


@dataclass(frozen=True)
class QueryFigures:
    """A line of figures of query photos: right is what is `relevant`, the same `product` or `category`."""

    relevant: str
    group: str
    model: str
    model_id: str
    current: bool  # whether it is the model of the page
    n: int
    estimates: tuple[Estimate, ...]


@dataclass(frozen=True)
class Failure:
    """A query photo that was answered badly: what it found, the nearest right image, and at what place that stood."""

    query: QueryRow
    wanted: Match
    place: int | None  # None: beyond the places that are kept


@dataclass(frozen=True)
class QueryEvaluation:
    """How well query photos are answered; `places` are kept of each."""

    queries: str
    metrics: tuple[str, ...]
    lines: tuple[QueryFigures, ...]
    places: int
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class CategoryFigures:
    """One category. `state` is published, unchanged, gate failed, or what else became of it, in a word or two."""

    category: str
    images: int
    products: int
    quality: Quality
    factory: str | None
    shards: int | None
    size_bytes: int | None
    version: str | None
    state: str


@dataclass(frozen=True)
class RejectExample:
    image_id: str | None
    uri: str | None


@dataclass(frozen=True)
class RejectReason:
    """How many images were rejected for `reason`, and a few of them."""

    reason: str
    count: int
    examples: tuple[RejectExample, ...] = ()


@dataclass(frozen=True)
class PlaceholderProduct:
    product_id: str
    title: str | None


@dataclass(frozen=True)
class Placeholder:
    """A picture, as a data URI, of how many `products` it is the only one, and a few of them."""

    picture: str
    products: int
    examples: tuple[PlaceholderProduct, ...] = ()


@dataclass(frozen=True)
class Placeholders:
    """How many pictures stand for how many products, and those for the most; `left_out`: of similar items."""

    pictures: int
    products: int
    shown: tuple[Placeholder, ...]
    left_out: bool = False


@dataclass(frozen=True)
class StageFigures:
    stage: str
    seconds: float | None
    images: int | None
    images_per_s: float | None


@dataclass(frozen=True)
class ReportPage:
    """Everything on the page. `root` and all else may hold URIs with secrets: the page shows them without."""

    catalog: str
    root: str
    run_id: str
    finished_at: datetime
    model: str | None  # as the settings call it, where that is known
    model_id: str
    headline: Headline
    gate: Gate
    comparison: Comparison | None = None
    queries: tuple[QueryRow, ...] = ()
    training: Training | None = None
    evaluation: QueryEvaluation | None = None
    categories: tuple[CategoryFigures, ...] = ()
    rejects: tuple[RejectReason, ...] = ()
    placeholders: Placeholders | None = None
    stages: tuple[StageFigures, ...] = ()


def render(page: ReportPage) -> str:
    """`page` as one HTML document that needs no network, no script and no other file."""
    return _load_template().render(page=page, curve=_draw_curve(page.training) if page.training else None)


def _draw_curve(training: Training) -> str:
    from lookalike.report.curve import draw_training_curve  # here, as a page without a training needs no plotting

    return draw_training_curve([epoch.recall for epoch in training.epochs])


@cache
def _load_template() -> Template:
    environment = Environment(
        loader=FunctionLoader(_read_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for write in (
        redact,
        formats.shorten,
        formats.count,
        formats.share,
        formats.rate,
        formats.duration,
        formats.size,
        formats.moment,
        formats.iso,
    ):
        environment.filters[write.__name__] = write
    return environment.get_template("template.html")


def _read_source(name: str) -> str:
    """A file of this package, also where the package rides in a zip."""
    return files("lookalike.report").joinpath(name).read_text(encoding="utf-8")
