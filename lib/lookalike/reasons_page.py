"""The page of all reasons for rejection: `python -m lookalike.reasons_page > docs/reasons.md`."""

from collections.abc import Iterator

from lookalike import reasons
from lookalike.reasons import Reason

_SECTIONS: tuple[tuple[str, str, tuple[Reason, ...]], ...] = (
    (
        "Manifest rows",
        "`ingest` holds each row of the manifest against the contract. The rows stand in `images` with the status "
        "`rejected`.",
        reasons.ROWS,
    ),
    (
        "Reading a picture",
        "`embed`, `match_queries`, `evaluate --queries`, `compare_models` and `fine_tune` read pictures by their uri.",
        reasons.READING,
    ),
    ("Pictures", "The same jobs decode the bytes.", reasons.PICTURES),
    (
        "Queries",
        "`match_queries` writes a row with the status `rejected` for each such query. `evaluate --queries` and "
        "`compare_models` stop if a query manifest has such rows, and name all problems at once. There `category` is "
        "the right answer, so the last reason does not occur.",
        reasons.QUERIES,
    ),
    (
        "Pictures that a training skips",
        "`fine_tune` counts them in `runs`, in the stage `training_set`, and on the model card.",
        reasons.TRAINING_PICTURES,
    ),
    (
        "Clicks that a training skips",
        f"`fine_tune` counts the rows of the click log likewise. If the query's own picture is rejected, the reason is "
        f"`{reasons.OF_QUERY}` and that picture's reason.",
        reasons.CLICKS,
    ),
)


def reasons_page() -> str:
    """Markdown: every reason, when it is tried again, and what to do."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Reasons for rejection"
    yield ""
    yield "A bad image, manifest row or query is rejected with one of these reasons, and counted. It does not"
    yield "stop the job, except as said under [Queries](#queries)."
    yield "`./spark-submit.sh status --rejected` lists the images of a catalog with their reasons."
    yield "Each run tries again what it could not read; `./spark-submit.sh pipeline --retry-rejected` works"
    yield "on these images only."
    yield "Rows with a `uri`, but with neither `updated_at` nor `content_hash`, are read and judged anew by each run."
    for title, about, group in _SECTIONS:
        yield ""
        yield f"## {title}"
        yield ""
        yield about
        yield ""
        yield "| reason | tried again | what to do |"
        yield "|---|---|---|"
        yield from (f"| `{reason.text}` | {reason.retried.value} | {reason.mend} |" for reason in group)


if __name__ == "__main__":
    print(reasons_page(), end="")
