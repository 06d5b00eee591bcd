"""What `--help` of each job says: what the job does, each option, and a command that can be pasted."""

import importlib
import re
import shlex

import pytest
from tests.conftest import CHECKOUT

from lookalike import cli

JOBS = sorted(path.stem for path in (CHECKOUT / "jobs").glob("*.py"))


def help_of(job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr("sys.argv", [f"{CHECKOUT}/jobs/{job}.py"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"jobs.{job}").main(["--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("job", JOBS)
def test_help_has_a_sentence_and_says_what_each_option_is(
    job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = help_of(job, monkeypatch, capsys)
    assert shown.startswith(f"usage: ./spark-submit.sh {job} ")
    sentence = shown.split("\n\n")[1]
    assert re.fullmatch(r"[A-Z][^\n]*\.", sentence)
    options = shown.partition("\noptions:\n")[2].partition("\n\n")[0]
    for option in re.split(r"\n(?=  -)", options):
        assert re.search(r"\S {2,}\S|\n {3,}\S", option), f"no help for {option}"


@pytest.mark.parametrize("job", JOBS)
def test_the_example_of_help_is_a_command_that_the_job_takes(
    job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = help_of(job, monkeypatch, capsys).rpartition("\nexample:\n")[2].strip()
    command, name, *options = shlex.split(example)
    assert (command, name) == ("./spark-submit.sh", job)
    parsed_only = 99
    monkeypatch.setattr(cli, "run_job", lambda _job: parsed_only)  # instead of running the job
    assert importlib.import_module(f"jobs.{job}").main(options) == parsed_only
