"""How a run starts: a root that can be written to, input at hand, Spark up."""

import sys
import uuid
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from lookalike import files, log
from lookalike.config import DEFAULT_MODEL, Settings
from lookalike.default_models import settle_default
from lookalike.errors import ConfigInvalid, RootUnusable
from lookalike.sample.write import MANIFEST, make_sample
from lookalike.selection import EVERYTHING, Selection
from lookalike.spark.run import Run, console, new_run_id
from lookalike.spark.session import session
from lookalike.spark.writer_lock import hold_writer_lock


def start(settings: Settings, app: str, selection: Selection) -> Run:
    """Begin a run of `app` for the `selection`.

    Without a manifest the input is the sample catalog, made below the root on first use.

    Raises RootUnusable, RootBusy, ConfigInvalid.
    """
    run_id = _begin(settings, app)
    spark = session(app)  # before files are touched: starting the JVM forks, and an HDFS client does not survive that
    check_writable(settings.root)
    hold_writer_lock(settings.root, run_id)
    progress = _progress()
    if settings.manifest is None:
        settings = settings.model_copy(update={"manifest": _sample_manifest(settings.root, progress)})
    return _settle_model(Run(spark, settings, run_id, progress, selection=selection))


def start_on_catalog(settings: Settings, app: str, writes: bool, selection: Selection = EVERYTHING) -> Run:
    """Begin a run of `app` on a catalog that stands already, for which no manifest is needed.

    Raises RootUnusable, RootBusy (where it `writes`).
    """
    run_id = _begin(settings, app)
    spark = session(app)
    fs, ledger = files.filesystem(files.join(settings.root, "tables", "images"))
    if not fs.exists(ledger):
        raise RootUnusable(
            f"{settings.root} holds no catalog yet: run the pipeline first, or give the root of its runs"
        )
    if writes:
        hold_writer_lock(settings.root, run_id)
    return _settle_model(Run(spark, settings, run_id, _progress(), selection=selection))


def _settle_model(run: Run) -> Run:
    """The run with the default model that is live under its root, where its settings name no other."""
    if run.settings.model.name != DEFAULT_MODEL:
        return run
    live = run.tables.read("publications").select("model_id").collect()
    model = settle_default(run.settings.model, [row["model_id"] for row in live])
    return replace(run, settings=run.settings.model_copy(update={"model": model}))


def _begin(settings: Settings, app: str) -> str:
    """The id of a run whose log begins: before anything else, so that whatever ends the run stands in it.

    Raises RootUnusable where the root's path can't be one.
    """
    run_id = new_run_id()
    log.begin(run_id, app, settings)
    files.check_path(settings.root)
    return run_id


def _progress() -> Console:
    """Where progress is shown; nowhere unless stderr is a terminal, as it takes the log's lines elsewhere."""
    progress = console(stderr=True)
    progress.quiet = not sys.stderr.isatty()
    return progress


def check_writable(root: str) -> None:
    probe = files.join(root, f".writable-{uuid.uuid4().hex}")
    try:
        with files.write_atomically(probe) as path:
            path.write_bytes(b"")
        fs, path_in_fs = files.filesystem(probe)
        fs.rm_file(path_in_fs)
    except Exception as error:
        # Each file system has its own errors for this.
        raise RootUnusable(f"root {root} can't be written to ({error}): set root to a place that can") from error


def _sample_manifest(root: str, progress: Console) -> str:
    if not files.is_local(root):
        raise ConfigInvalid("manifest is not set; the sample catalog that stands in for it needs a local root")
    _, folder = files.filesystem(files.join(root, "sample"))
    manifest = Path(folder) / MANIFEST
    if not manifest.exists():
        progress.print("no manifest is set: making the sample catalog")
        make_sample(Path(folder))
    return files.absolute(str(manifest))
