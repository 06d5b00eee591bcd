"""One run: what every stage is given, and the row that each leaves in `runs`."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from pyspark.sql import DataFrame, SparkSession
from rich.console import Console

from lookalike import files, log, schemas
from lookalike.config import Settings
from lookalike.errors import ManifestChanged, foreseen
from lookalike.selection import EVERYTHING, Selection
from lookalike.spark.input_files import InputFiles, inspect_files
from lookalike.spark.manifest import read_given_dim, read_manifest
from lookalike.spark.parquet_input import pin_version
from lookalike.spark.tables import Tables, make_arrow_rows


@dataclass
class StageFigures:
    """What a stage did: `counts` by name, and the images that its rate is about (None: no rate).

    `decisions` says by category what was decided and why.
    """

    stage: str
    counts: dict[str, int] = field(default_factory=dict)
    images: int | None = None
    decisions: dict[str, str] = field(default_factory=dict)
    manifest_checksum: str | None = None  # of a stage that takes the manifest in
    seconds: float = 0.0

    @property
    def images_per_s(self) -> float | None:
        return self.images / self.seconds if self.images and self.seconds else None


@dataclass(frozen=True)
class Run:
    """A run's session, settings and tables. `settings.root` and `settings.manifest` are absolute here.

    `selection` is the part of the catalog that the run is about.
    """

    spark: SparkSession
    settings: Settings
    run_id: str
    console: Console
    stages: list[StageFigures] = field(default_factory=list)
    selection: Selection = EVERYTHING

    @cached_property
    def manifest(self) -> DataFrame:
        """The whole manifest, whatever the selection. Raises ManifestInvalid."""
        return read_manifest(self.spark, self.manifest_uri)

    @cached_property
    def manifest_uri(self) -> str:
        """The manifest's address; of a Delta table with the version that it had when the run began, as in `path@v3`."""
        assert self.settings.manifest is not None
        return pin_version(self.settings.manifest)

    @cached_property
    def manifest_files(self) -> InputFiles:
        """The manifest's files as they were when the run began to read it."""
        return inspect_files(self.manifest)

    def check_manifest(self) -> None:
        """Raises ManifestChanged where a file of the manifest is not as it was."""
        if self.settings.manifest and (uri := self.manifest_files.changed_file()):
            raise ManifestChanged(
                f"{files.redact(uri)} changed while the run was at work, so nothing was published: run this again"
            )

    @cached_property
    def given_dim(self) -> int | None:
        """Dimensions of the embeddings that the manifest brings; None where it brings none, as the sample's."""
        return read_given_dim(self.manifest) if self.settings.manifest else None

    @cached_property
    def model_id(self) -> str:
        """The configured model's, or `given-DIM` where the manifest brings embeddings."""
        if self.given_dim:
            return f"given-{self.given_dim}"
        from lookalike.kernels.models.load import load_model  # here, as torch takes ten seconds to import

        return load_model(self.settings.model).model_id

    @property
    def tables(self) -> Tables:
        return Tables(self.spark, self.settings.root)

    @contextmanager
    def stage(self, name: str) -> Iterator[StageFigures]:
        """Time a stage and record its figures, once it ends well."""
        figures = StageFigures(name)
        started_at, start = datetime.now(UTC), time.monotonic()
        log.event("stage started", stage=name)
        try:
            yield figures
        except BaseException as error:
            cause = foreseen(error) or error
            log.event("stage failed", stage=name, error=f"{type(cause).__name__}: {cause}")
            raise
        figures.seconds = time.monotonic() - start
        self.stages.append(figures)
        rate = figures.images_per_s
        log.event("stage ended", stage=name, seconds=figures.seconds, images_per_s=rate, counts=figures.counts)
        measured = figures.seconds, figures.counts, rate, figures.decisions or None
        uri = files.redact(self.settings.manifest or "") if figures.manifest_checksum else None
        row = (self.run_id, name, started_at, *measured, uri, figures.manifest_checksum)
        self.tables.append_rows("runs", make_arrow_rows([row], schemas.RUNS))


_PIPE_WIDTH = 200


def console(stderr: bool = False) -> Console:
    """A console as wide as the terminal, or wide enough for tables where output goes to a file."""
    narrow = Console(stderr=stderr)
    return narrow if narrow.is_terminal else Console(stderr=stderr, width=_PIPE_WIDTH)


def new_run_id() -> str:
    """Sorts by time, and no two are alike."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
