"""The training set: pictures of the catalog with their labels, and triplets of a click log, as files for a training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lookalike.spark.run import Run

if TYPE_CHECKING:  # its module loads torch, of which the driver has no need
    from lookalike.kernels.networks import Preprocessing


@dataclass(frozen=True)
class ClickCounts:
    """Of `rows` in the click log `used` are part of a triplet and `skipped`, by reason, are not: together all rows."""

    rows: int
    used: int
    skipped: Mapping[str, int]
    queries: Mapping[str, int]  # by split
    triplets: Mapping[str, int]  # by split


@dataclass(frozen=True)
class TrainingCounts:
    """Of `rows` in the ledger `pictures` are in the set and `skipped`, by reason, are not: together all rows."""

    rows: int
    pictures: Mapping[str, int]  # by split
    products: Mapping[str, int]  # by split
    classes: Mapping[str, int]  # by kind of label, those with a training picture: their numbers are below this
    skipped: Mapping[str, int]
    clicks: ClickCounts | None = None


def write_training_set(run: Run, preprocessing: "Preprocessing", model_id: str, folder: str) -> TrainingCounts:
    """Write `pictures`, and with a click log `queries` and `triplets`, as Parquet below `folder`, a URI.

    By `run.settings.fine_tune`, of the run's selection and manifest. `preprocessing` is the model's with the `size_px`
    to store; `model_id` is whose embeddings judge the clicks. Raises TrainingImpossible, ClicksInvalid.
    """
    raise NotImplementedError
