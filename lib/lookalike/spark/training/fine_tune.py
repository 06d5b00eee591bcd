"""Fine-tune the configured model on the catalog: the training set by Spark, the training by TorchDistributor."""

import os
from dataclasses import replace
from typing import Any

from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession

from lookalike import config, files
from lookalike.config import Settings
from lookalike.errors import LookalikeError, ModelForgot
from lookalike.kernels.models import model_file
from lookalike.kernels.models.load import Model, build_model, load_model
from lookalike.kernels.models.model_file import ModelFile
from lookalike.kernels.training.fine_tune import Progress, Training, train
from lookalike.kernels.training.forgetting import KS, Forgetting, measure_forgetting
from lookalike.model_card import render_model_card
from lookalike.spark.origin import Origin
from lookalike.spark.run import Run, console
from lookalike.spark.training.training_set import TrainingCounts, write_training_set

_STORED = 1.15  # side of a stored picture, of the model's input: crops and rotations take from the rest


def fine_tune(run: Run, out: str) -> str:
    """Train on what the run's selection and manifest have, write the model file `out` and its card; gives its model_id.

    Raises TrainingImpossible, ClicksInvalid, ModelInvalid, ModelForgot.
    """
    model = load_model(run.settings.model)
    size_px = run.settings.fine_tune.size_px or model.preprocessing.size_px
    stored = replace(model.preprocessing, size_px=round(_STORED * size_px))
    folder = files.join(run.settings.root, "staging", run.run_id, "training")
    checkpoint = f"{out}.checkpoint"  # beside the file to come, for the same command to find
    try:
        counts = write_training_set(run, stored, folder)
        with run.stage("fine_tune") as figures:
            candidate = files.join(folder, f"candidate{config.MODEL_FILE_SUFFIX}")
            spec = run.settings.fine_tune
            progress = _trained(run, Training(folder, candidate, checkpoint, run.settings.model, spec, _threads(run)))
            figures.counts = {"epochs": len(progress.epochs) - 1, "best_epoch": progress.best}
            figures.images = counts.pictures["train"] * (len(progress.epochs) - 1)
        tuned = load_model(config.ModelSettings(name=candidate))
        forgetting = measure_forgetting(_load_original(run.settings.model), tuned, os.cpu_count() or 1)
        _check_forgetting(forgetting, spec)
        with files.write_atomically(out) as path:
            path.write_bytes(files.read_bytes(candidate))
    finally:
        files.remove(folder)
    with files.write_atomically(out.removesuffix(config.MODEL_FILE_SUFFIX) + ".md") as path:
        path.write_text(
            _card(run.settings, tuned.model_id, model.model_id, counts, progress, forgetting), encoding="utf-8"
        )
    files.remove(checkpoint)
    if not progress.best:
        console().print("no epoch found more than the model before training, so that is what was written")
    return tuned.model_id


def _load_original(settings: config.ModelSettings) -> Model:
    """The network below the model of `settings`, as it was before any training."""
    return build_model(ModelFile(model_file.resolve(settings).original_settings), settings.name)


def _check_forgetting(forgetting: Forgetting, spec: config.FineTuneSettings) -> None:
    """Raises ModelForgot."""
    (before, _), (after, _) = forgetting.before, forgetting.after
    said = f"of photos of groceries, which it was not trained on, the new model finds {after:.3f} at once (recall@1), "
    said += f"the network before training {before:.3f}"
    if forgetting.loss > spec.max_forgotten:
        raise ModelForgot(
            f"{said}: more was forgotten than fine_tune.max_forgotten={spec.max_forgotten:g} allows, so no model was "
            f"written. Raise fine_tune.original_share={spec.original_share:g} and give another --out to train anew; or "
            "raise fine_tune.max_forgotten and run this again, which writes the model without training again"
        )
    console().print(said)


def _trained(run: Run, training: Training) -> Progress:
    settings = run.settings.fine_tune
    is_local = _is_local(run.spark)
    uses_gpus = not is_local and run.spark.conf.get("spark.executor.resource.gpu.amount", "0") != "0"
    distributor = TorchDistributor(num_processes=settings.processes, local_mode=is_local, use_gpu=uses_gpus)
    ended: Any = distributor.run(_ended, training)
    if isinstance(ended, LookalikeError):
        raise ended
    progress: Progress = ended
    return progress


def _ended(training: Training) -> Progress | LookalikeError:
    """Of a process that raises, TorchDistributor tells only that it did."""
    try:
        return train(training)
    except LookalikeError as error:
        return error


def _threads(run: Run) -> int:
    """CPU threads of each process."""
    if _is_local(run.spark):
        return max(1, (os.cpu_count() or 1) // run.settings.fine_tune.processes)
    return int(run.spark.conf.get("spark.task.cpus", "1") or 1)


def _is_local(spark: SparkSession) -> bool:
    return str(spark.sparkContext.master).startswith("local")


def _card(
    settings: Settings,
    model_id: str,
    base: str,
    counts: TrainingCounts,
    progress: Progress,
    forgetting: Forgetting,
) -> str:
    origin = Origin.here()
    return render_model_card(
        model_id=model_id,
        base=base,
        settings=settings.fine_tune.model_dump(mode="json"),
        manifest=files.redact(settings.manifest or ""),
        code_version=origin.code_version or "",
        counts={
            "ledger rows": counts.rows,
            **{f"pictures, {split}": n for split, n in counts.pictures.items()},
            **{f"products, {split}": n for split, n in counts.products.items()},
            **{f"classes of {kind}": n for kind, n in counts.classes.items()},
            **{f"left out: {reason}": n for reason, n in counts.skipped.items()},
        },
        epochs=progress.epochs,
        best=progress.best,
        outside=[(f"recall@{k}", *pair) for k, *pair in zip(KS, forgetting.before, forgetting.after, strict=True)],
    )
