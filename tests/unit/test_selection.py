"""What part of a catalog the options of a job name."""

import importlib

import pytest

from lookalike import cli
from lookalike.errors import ConfigInvalid
from lookalike.selection import Selection


def named(*argv: str) -> Selection:
    return cli.read_selection(cli.parse_arguments("A job.", argv, "./spark-submit.sh job"))


def test_nothing_named_is_everything() -> None:
    assert named() == Selection((), False, None)


def test_options() -> None:
    assert named("--category", "women/", "--category", "Möbel/Tische & Stühle", "--category", "women") == Selection(
        ("women", "Möbel/Tische & Stühle")
    )
    assert named("--full", "--retry-rejected") == Selection((), True, "unreadable")
    assert named("--retry-rejected", "all", "--category", "a") == Selection(("a",), False, "all")


@pytest.mark.parametrize("path", ["", "/", "/women", " women"])
def test_what_can_be_no_category_is_refused(path: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"--category .*write it as the manifest does"):
        named("--category", "good", "--category", path)


@pytest.mark.parametrize(
    ("job", "ignored"),
    [
        *((job, "--full") for job in ("ingest", "embed", "status")),
        *(
            (job, "--retry-rejected")
            for job in ("status", "plan", "build_index", "similar_items", "evaluate", "publish")
        ),
    ],
)
def test_an_option_that_a_job_would_ignore_is_refused(
    job: str, ignored: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        importlib.import_module(f"jobs.{job}").main([ignored])
    assert f"unrecognized arguments: {ignored}" in capsys.readouterr().err
