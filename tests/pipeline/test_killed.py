"""`kill -9` of the driver at points over the whole run: readers see whole versions, and the next run finishes."""

import bisect
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from tests import catalogs
from tests.conftest import CHECKOUT, FOR_A_SHORT_JOB

from lookalike import reader

POINTS = int(os.environ.get("LOOKALIKE_KILLS", "6"))  # more, and in parts: tests/bench/README.md
PART, PARTS = map(int, os.environ.get("LOOKALIKE_KILLS_PART", "1/1").split("/"))
KILLED_AT = [(point + 1) / (POINTS + 1) for point in range(PART - 1, POINTS, PARTS)]  # shares of a whole run
CATALOGS = 2
K = 5
CATEGORIES = ("a", "b/c", "b/d")
SIZES = (2, 8, 8)
SETTINGS = (
    "index.pack_below=10",  # so that one category is in a pack, and the others have files of their own
    "gate.max_recall_drop=1",  # as the embeddings are random, in a hundred rounds chance makes large ones
)

Versions = dict[str, dict[str, list[str]]]


def rows_of_round(number: int) -> list[catalogs.Row]:
    """A catalog in which every round changes two categories of three."""
    return [
        row
        for place, category in enumerate(CATEGORIES)
        for row in catalogs.embeddings(
            category, SIZES[place], seed=1_000 * (place + 1) + number - (number % 3 == place)
        )
    ]


def truth(rows: list[catalogs.Row]) -> Versions:
    """category -> product -> its similar products, by brute force."""
    found: Versions = {}
    for category in CATEGORIES:
        ours = [row for row in rows if row["category"] == category]
        products = np.array([row["product_id"] for row in ours])
        vectors = np.array([row["embedding"] for row in ours])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        names = sorted(set(products))
        scores = np.array([[(vectors[products == a] @ vectors[products == b].T).max() for b in names] for a in names])
        np.fill_diagonal(scores, -np.inf)
        found[category] = {
            name: [names[place] for place in np.argsort(-line)[: min(K, len(names) - 1)]]
            for name, line in zip(names, scores, strict=True)
        }
    return found


def answers(catalog: reader.Catalog, products: list[str]) -> dict[str, list[str]]:
    return {product: [match.product_id for match in catalog.similar(product, K)] for product in products}


class Moment(NamedTuple):
    """So many seconds after so many stages: on a busier machine it stays in the stage in which it was chosen."""

    stages: int
    seconds: float


class Started:
    """A pipeline in processes of its own, the driver's Python and JVM, which `kill -9` ends at a moment."""

    def __init__(self, root: Path, manifest: Path, killed_at: Moment) -> None:
        command = [str(CHECKOUT / "spark-submit.sh"), "pipeline", *catalogs.options(root, manifest, SETTINGS)]
        command += ["--", *FOR_A_SHORT_JOB]
        self._log = root / "tables" / "runs" / "_delta_log"
        self._awaited = self._commits() + killed_at.stages
        self._job = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self._end = threading.Thread(target=self._kill_after, args=(killed_at.seconds,))
        self._end.start()

    def _commits(self) -> int:
        """Those of `runs`, of which each stage makes one."""
        return len(list(self._log.glob("*.json")))

    def _kill_after(self, seconds: float) -> None:
        while self._commits() < self._awaited and self._job.poll() is None:
            time.sleep(0.02)
        try:
            self._job.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self._job.pid, signal.SIGKILL)
            self._job.wait()

    def wait(self) -> int:
        """The exit code: -9 of a run that was killed."""
        self._end.join()
        return self._job.wait()


@dataclass
class Shop:
    """A catalog, what is live in it, and readers that stay open."""

    folder: Path
    before: Versions = field(default_factory=dict)
    opened: dict[str, reader.Catalog] = field(default_factory=dict)
    stages_before: int = 0

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def start(self, number: int, killed_at: Moment) -> Started:
        """Start a run of another round of the manifest."""
        self.stages_before = self.stages()
        manifest = catalogs.write_manifest(self.folder / f"{number}.parquet", rows_of_round(number))
        return Started(self.root, manifest, killed_at)

    def moments(self, begun: float, ended: float) -> list[Moment]:
        """KILLED_AT in a run that was not killed, which began and ended at these times."""
        ends = [row["started_at"].timestamp() + row["seconds"] for row in catalogs.table(self.root, "runs")]
        starts = [begun, *sorted(ends)]
        chosen = [begun + share * (ended - begun) for share in KILLED_AT]
        stages = [bisect.bisect_right(starts, at) - 1 for at in chosen]
        return [Moment(stage, at - starts[stage]) for stage, at in zip(stages, chosen, strict=True)]

    def open(self, number: int) -> None:
        self.before = truth(rows_of_round(number))
        self.opened = {c: reader.open(str(self.root), c, cache=self.folder / "cache") for c in CATEGORIES}
        self.check(self.before)

    def check(self, *allowed: Versions) -> None:
        """Each reader gives what one of these says, for each of its category's products."""
        for category, catalog in self.opened.items():
            assert answers(catalog, list(self.before[category])) in [versions[category] for versions in allowed]

    def refresh(self) -> None:
        for catalog in self.opened.values():
            catalog.refresh()

    def stages(self) -> int:
        return len(catalogs.table(self.root, "runs")) if self.root.exists() else 0

    def finish(self, number: int) -> None:
        """After a kill: readers see the old versions or the new; the next run completes, and computes nothing twice."""
        after = truth(rows_of_round(number))
        self.check(self.before)
        self.refresh()
        self.check(self.before, after)
        ended = catalogs.run("pipeline", self.root, self.folder / f"{number}.parquet", SETTINGS)
        assert ended.code == 0, ended.err
        self.refresh()
        self.before = after
        self.check(after)
        hashes = [row["content_hash"] for row in catalogs.table(self.root, "embeddings")]
        assert len(hashes) == len(set(hashes))

    def clean(self) -> None:
        """Nothing is left that cleanup does not take, but what a version names."""
        cleaned = catalogs.run("cleanup", self.root, None, flags=("--delete", "--retain", "0"))
        assert cleaned.code == 0, cleaned.err
        self.check(self.before)
        named = {p for row in catalogs.table(self.root, "shards") for p in (row["path"], row["vectors_path"]) if p}
        found = {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()}
        assert {path for path in found if not path.startswith(("tables/", ".locks/"))} == named | {"report.html"}
        for category in CATEGORIES:
            reader.open(str(self.root), category, cache=self.folder / "new cache")  # checks each file's sha256


@pytest.mark.usefixtures("spark")
def test_driver_killed_at_points_over_the_whole_run(tmp_path: Path) -> None:
    """While one catalog's run waits for its kill, this process finishes what was killed in another catalog."""
    shops = [Shop(tmp_path / str(number)) for number in range(CATALOGS)]
    for shop in shops:
        shop.folder.mkdir()
    begun = time.time()
    for whole in [shop.start(0, Moment(0, 600)) for shop in shops]:
        assert whole.wait() == 0
    moments = shops[0].moments(begun, time.time())  # with as much else to do for the machine as below
    for shop in shops:
        shop.open(0)

    waiting: list[Started] = []
    reached, codes = [], []
    for point in range(len(moments) + 1):
        if point < len(moments):
            waiting.append(shops[point % CATALOGS].start(1 + point // CATALOGS, moments[point]))
        if point:
            codes.append(waiting.pop(0).wait())
            shop = shops[(point - 1) % CATALOGS]
            reached.append(shop.stages() - shop.stages_before)
            shop.finish(1 + (point - 1) // CATALOGS)
    assert set(codes) <= {-signal.SIGKILL, 0}, "a run failed by itself"
    ended = codes.count(0)  # some run may be faster than the one that was measured
    assert ended <= max(1, len(moments) // 10), f"{ended} of {len(moments)} runs ended before they could be killed"
    assert len(set(reached)) >= min(4, len(moments) // 2), f"kills after {reached} stages leave much of the run out"
    for shop in shops:
        shop.clean()
