"""Two drivers, each a process of its own, publish at the same moment."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from deltalake import DeltaTable
from tests.cluster.servers import HDFS_USER
from tests.conftest import CHECKOUT, spark_environment

from lookalike import files


class Publisher:
    """One process of `tests.cluster.publisher`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def say(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


@contextmanager
def publisher(name: str, folder: Path) -> Iterator[Publisher]:
    folder.mkdir()
    environment = {**os.environ, **spark_environment(folder, "local[1]"), "HADOOP_USER_NAME": HDFS_USER}
    environment["PYTHONPATH"] = f"{CHECKOUT / 'lib'}:{CHECKOUT}"
    command = [sys.executable, "-m", "tests.cluster.publisher", name]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        yield Publisher(process)
    finally:
        process.communicate(timeout=300)


ROUNDS = os.environ.get("LOOKALIKE_ROUNDS")  # more than here: tests/bench/README.md


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Publisher]]:
    folder = tmp_path_factory.mktemp("publishers")
    with ExitStack() as running:
        yield [running.enter_context(publisher(name, folder / name)) for name in ("one", "two")]


@pytest.mark.parametrize(("place", "few"), [("a local disk", 6), ("HDFS", 4)])
def test_two_publish_at_once(
    place: str, few: int, both: list[Publisher], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Of the same categories one wins all of them each round and the other is told; of different ones both win."""
    root = f"{request.getfixturevalue('hdfs_uri')}/twice" if place == "HDFS" else f"file://{tmp_path / 'root'}"
    rounds = int(ROUNDS or few)
    for number in range(rounds):
        same = number % 2 == 0
        for one, categories in zip(both, ("a b", "a b" if same else "c d"), strict=True):
            one.say(f"{root} {number} {categories}")
        assert [one.hear() for one in both] == ["looked", "looked"], number
        for one in both:
            one.say("go")
        said = [one.hear() for one in both]
        if same:
            assert sorted(said) == ["PublishConflict", "won"], number
            winner = f"{('one', 'two')[said.index('won')]}-{number}"
            expected = {"a": winner, "b": winner}
        else:
            assert said == ["won", "won"], number
            expected = {"a": f"one-{number}", "b": f"one-{number}", "c": f"two-{number}", "d": f"two-{number}"}
        live = {row["category"]: row["version"] for row in table(root, "publications")}
        assert expected.items() <= live.items(), number
    published = [row["run_id"] for row in table(root, "audit") if row["action"] == "publish"]
    assert len(set(published)) == rounds + rounds // 2


def table(root: str, name: str) -> list[dict[str, object]]:
    return DeltaTable(files.join(root, "tables", name)).to_pyarrow_table().to_pylist()
