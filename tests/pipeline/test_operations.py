"""Everyday operation, by whole jobs: publish, look, roll back, pin, clean up; a reader is there all the time."""

import threading
from pathlib import Path
from typing import Any

import pytest
from tests import catalogs

from lookalike import reader
from lookalike.errors import RootBusy
from lookalike.spark import start

CATEGORY = "women/dresses"
SETTINGS = ("gate.max_recall_drop=1",)  # of random embeddings, more products have less recall


class Service:
    """A reader that searches and refreshes in a loop, in a thread of its own."""

    def __init__(self, root: Path, cache: Path) -> None:
        self._catalog = reader.open(str(root), CATEGORY, cache=cache)
        self.answers: set[tuple[str, Any]] = set()
        self.problems: list[Exception] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                self._catalog.refresh()
                self.answers.add((self._catalog.version, tuple(self._catalog.similar(f"{CATEGORY}-0", 5))))
            except Exception as error:
                self.problems.append(error)
            self._stop.wait(0.05)

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


def job(name: str, root: Path, *arguments: str) -> catalogs.Ended:
    return catalogs.run(name, root, None, flags=arguments)


@pytest.mark.usefixtures("spark")
def test_a_week_of_operation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    assert "holds no catalog yet" in job("status", root).error
    first = catalogs.write_manifest(tmp_path / "1.parquet", catalogs.embeddings(CATEGORY, 6))
    second = catalogs.write_manifest(tmp_path / "2.parquet", catalogs.embeddings(CATEGORY, 8, seed=1))
    assert catalogs.run("pipeline", root, first).code == 0
    service = Service(root, tmp_path / "cache")
    held = reader.open(str(root), CATEGORY, cache=tmp_path / "cache")
    try:
        assert catalogs.run("pipeline", root, second, SETTINGS).code == 0
        (row,) = catalogs.table(root, "publications")
        old, new = row["replaced_version"], row["version"]
        back = job("rollback", root, "--category", CATEGORY)
        assert back.code == 0, back.err
        assert old in back.out
        page = (root / "report.html").read_text(encoding="utf-8")
        assert old in page
        assert "Services read again what was live before." in page
        assert "Rows taken in so far" in page
        # Nothing changed: what was rolled back from stays away, until somebody insists.
        again = catalogs.run("pipeline", root, second, SETTINGS)
        assert again.code == 0, again.err
        assert catalogs.live(root) == {CATEGORY: old}
        with pytest.raises(SystemExit) as refused:
            catalogs.run("publish", root, second, SETTINGS, flags=("--force",))
        assert refused.value.code == 2
        forced = catalogs.run("publish", root, second, SETTINGS, flags=("--force", "--why", "it was the network"))
        assert forced.code == 0, forced.err
        assert "1 categories published, 0 withdrawn" in forced.out
        assert "Services read it now." in (root / "report.html").read_text(encoding="utf-8")
        assert catalogs.live(root) == {CATEGORY: new}
        assert job("pin", root, "--category", CATEGORY, "--version", old, "--why", "to compare").code == 0
        with monkeypatch.context() as busy:
            busy.setattr(start, "hold_writer_lock", another_run_writes)
            assert job("cleanup", root).code == 0
            assert "another run" in job("cleanup", root, "--delete").error
        cleaned = job("cleanup", root, "--delete")
        assert cleaned.code == 0, cleaned.err
        assert "0 versions, 0 files" in cleaned.out
        assert held.similar(f"{CATEGORY}-0")
    finally:
        service.end()
    assert service.problems == []
    assert {version for version, _ in service.answers} == {old, new}
    assert len(service.answers) == 2

    assert job("unpin", root, "--category", CATEGORY, "--version", old).code == 0
    told = job("status", root)
    assert new in told.out
    history = job("history", root, "--category", CATEGORY)
    said = [row["action"] for row in sorted(catalogs.table(root, "audit"), key=lambda row: row["at"])]
    assert said == ["publish", "publish", "rollback", "publish", "pin", "unpin"]
    assert all(action in history.out for action in said)
    (publication,) = catalogs.table(root, "publications")
    assert (publication["forced"], publication["why"]) == (True, "it was the network")
    assert publication["manifest"] == f"file://{second}"
    manifests = [row["manifest"] for row in catalogs.table(root, "audit") if row["action"] == "rollback"]
    assert manifests == [f"file://{first}"]


def another_run_writes(*_: str) -> None:
    raise RootBusy("another run writes here")
