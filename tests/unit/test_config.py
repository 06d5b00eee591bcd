"""Settings: files and overrides, and all problems at once."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from lookalike import config
from lookalike.errors import ConfigInvalid

CHECKOUT = Path(__file__).parents[2]


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('root = "/a"\n[index]\nseed = 1\ncandidates = 17\n')
    loaded = config.load(
        tmp_path / "a.toml", ["index.seed=2", "root=s3a://bucket/b", "model.name=torchvision/resnet50"]
    )
    assert (loaded.root, loaded.index.seed, loaded.index.candidates) == ("s3a://bucket/b", 2, 17)
    assert loaded.model.name == "torchvision/resnet50"


def test_settings_of_spark_and_an_empty_root_are_refused() -> None:
    with pytest.raises(ConfigInvalid) as error:
        config.load(None, ["spark.executor.memory=8g", "root="])
    assert "--set spark.executor.memory=8g: Spark's own settings go after `--`" in str(error.value)
    assert "--set: root: String should have at least 1 character" in str(error.value)


def test_every_problem_is_listed_with_place_and_mend(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        'rooot = "/a"\nmanifest = "m"\n[index]\nsede = 1\n[gate]\nmin_coverage = 1.5\n[embed]\nbatch_images = "many"\n'
    )
    with pytest.raises(ConfigInvalid) as error:
        config.load(path, ["index.candidates=0", "manifest.x=1", "nonsense", "report.querys=3"])
    lines = str(error.value).splitlines()[1:]
    for expected in (
        f"{path}: rooot: unknown key; did you mean root?",
        f"{path}: index.sede: unknown key; did you mean index.seed?",
        f"{path}: gate.min_coverage: Input should be less than or equal to 1, got 1.5",
        f"{path}: embed.batch_images: Input should be a valid integer",
        "--set: index.candidates: Input should be greater than or equal to 10, got 0",
        "--set: report.querys: unknown key; did you mean report.queries?",
        "--set manifest.x: manifest is not a section",
        "--set nonsense: write it as key=value",
    ):
        assert any(expected in line for line in lines), expected
    assert len(lines) == 8


@pytest.mark.parametrize(("text", "message"), [(None, "no configuration file"), ("root = ", "is not TOML")])
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "a.toml"
    if text:
        path.write_text(text)
    with pytest.raises(ConfigInvalid, match=message) as error:
        config.load(path)
    assert "a.toml" in str(error.value)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        config.load().index.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", ["local.toml", "cluster.toml"])
def test_the_files_in_conf_are_valid(name: str) -> None:
    config.load(CHECKOUT / "conf" / name)
