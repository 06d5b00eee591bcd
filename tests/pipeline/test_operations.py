"""Everyday operation, by whole jobs: publish, look, roll back, pin, clean up; a reader is there all the time."""

import threading
from dataclasses import dataclass, field
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


@dataclass
class Week:
    """What a week of operation said and left behind; done once for all tests here, which only look at it."""

    folder: Path
    ended: dict[str, catalogs.Ended] = field(default_factory=dict)
    live: dict[str, str] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def manifest(self, number: int) -> Path:
        return self.folder / f"{number}.parquet"

    def do(self, step: str, job: str, *flags: str, number: int | None = None) -> None:
        """Run a job, and keep what it said, what is live after it, and the report."""
        manifest = self.manifest(number) if number else None
        self.ended[step] = catalogs.run(job, self.root, manifest, SETTINGS if number else (), flags=flags)
        page = self.root / "report.html"
        if page.exists():
            self.live[step] = catalogs.live(self.root)[CATEGORY]
            self.pages[step] = page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def week(spark_session: object, tmp_path_factory: pytest.TempPathFactory) -> tuple[Week, Service]:  # noqa: ARG001
    week = Week(tmp_path_factory.mktemp("week"))
    catalogs.write_manifest(week.manifest(1), catalogs.embeddings(CATEGORY, 6))
    catalogs.write_manifest(week.manifest(2), catalogs.embeddings(CATEGORY, 8, seed=1))
    week.do("before", "status")
    week.do("first", "pipeline", number=1)
    service = Service(week.root, week.folder / "cache")
    held = reader.open(str(week.root), CATEGORY, cache=week.folder / "cache")
    try:
        publish_and_roll_back(week)
        pin_and_clean_up(week)
        held.similar(f"{CATEGORY}-0")  # of a version that is not live
    finally:
        service.end()
    week.do("unpin", "unpin", "--category", CATEGORY, "--version", week.live["first"])
    week.do("status", "status")
    week.do("history", "history", "--category", CATEGORY)
    return week, service


def publish_and_roll_back(week: Week) -> None:
    week.do("second", "pipeline", number=2)
    week.do("rollback", "rollback", "--category", CATEGORY)
    week.do("again", "pipeline", number=2)
    with pytest.raises(SystemExit) as refused:
        catalogs.run("publish", week.root, week.manifest(2), SETTINGS, flags=("--force",))
    assert refused.value.code == 2
    week.do("forced", "publish", "--force", "--why", "it was the network", number=2)


def pin_and_clean_up(week: Week) -> None:
    week.do("pin", "pin", "--category", CATEGORY, "--version", week.live["first"], "--why", "to compare")
    with pytest.MonkeyPatch.context() as busy:
        busy.setattr(start, "hold_writer_lock", another_run_writes)
        week.do("look beside a run", "cleanup")
        week.do("delete beside a run", "cleanup", "--delete")
    week.do("cleanup", "cleanup", "--delete")


def another_run_writes(*_: str) -> None:
    raise RootBusy("another run writes here")


def test_only_what_must_fail_fails(week: tuple[Week, Service]) -> None:
    failed = {step: ended.error for step, ended in week[0].ended.items() if ended.code}
    assert failed.keys() == {"before", "delete beside a run"}
    assert "holds no catalog yet" in failed["before"]
    assert "another run" in failed["delete beside a run"]


def test_rollback_makes_the_old_version_live_and_says_so(week: tuple[Week, Service]) -> None:
    done, _ = week
    old, new = done.live["first"], done.live["second"]
    assert old != new
    assert done.live["rollback"] == old
    assert old in done.ended["rollback"].out
    page = done.pages["rollback"]
    assert old in page
    assert "Services read again what was live before." in page
    assert "Rows taken in so far" in page


def test_what_was_rolled_back_from_stays_away_until_somebody_insists(week: tuple[Week, Service]) -> None:
    done, _ = week
    assert done.live["again"] == done.live["first"]
    assert done.live["forced"] == done.live["second"]
    assert "1 categories published, 0 withdrawn" in done.ended["forced"].out
    assert "Services read it now." in done.pages["forced"]


def test_cleanup_leaves_what_is_pinned_or_young(week: tuple[Week, Service]) -> None:
    done, _ = week
    assert "0 versions, 0 files" in done.ended["cleanup"].out
    assert reader.open(str(done.root), CATEGORY, done.live["first"], cache=done.folder / "other").similar(
        f"{CATEGORY}-0"
    )


def test_a_service_got_whole_versions_all_the_time(week: tuple[Week, Service]) -> None:
    done, service = week
    assert service.problems == []
    assert {version for version, _ in service.answers} == {done.live["first"], done.live["second"]}
    assert len(service.answers) == 2


def test_history_tells_who_did_what(week: tuple[Week, Service]) -> None:
    done, _ = week
    audit = sorted(catalogs.table(done.root, "audit"), key=lambda row: row["at"])
    actions = [row["action"] for row in audit]
    assert actions == ["publish", "publish", "rollback", "publish", "pin", "unpin"]
    assert all(action in done.ended["history"].out for action in actions)
    assert [row["manifest"] for row in audit if row["action"] == "rollback"] == [f"file://{done.manifest(1)}"]


def test_the_pointer_says_what_is_live_and_why(week: tuple[Week, Service]) -> None:
    done, _ = week
    assert done.live["forced"] in done.ended["status"].out
    (publication,) = catalogs.table(done.root, "publications")
    assert (publication["forced"], publication["why"]) == (True, "it was the network")
    assert publication["manifest"] == f"file://{done.manifest(2)}"
