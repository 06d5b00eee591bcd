"""Fine-tune: metric learning on a training set, by one process per GPU or a few on CPUs.

A projection on top of the model is trained, and the layers of its network that the settings name. The projection begins
as the PCA of the training pictures, so that training starts from the model as it is. The embedding of the network as it
was stands beside in the new model, which so still knows what that one knew; it has no part in the loss. Each batch is
about one kind of label, the kinds in turn: balanced by it, and held against it by the multi-similarity loss and miner
(Wang et al., 2019) of pytorch-metric-learning. Two kinds in one batch would pull at the same pictures, as two colours
of a style are one style and two products. Triplets of a click log add a triplet loss. Each picture is augmented anew
each time. Batch normalisation keeps its statistics.
"""

import ctypes
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from pytorch_metric_learning.losses import MultiSimilarityLoss, TripletMarginLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lookalike import files
from lookalike.config import FineTuneSettings, ModelSettings
from lookalike.errors import ModelInvalid, TrainingImpossible
from lookalike.kernels.evaluation.retrieval import NO_LABEL, Block, rank_gallery
from lookalike.kernels.models import model_file
from lookalike.kernels.models.embedding import Projection
from lookalike.kernels.models.engines import choose_engine
from lookalike.kernels.models.load import Model, build_model, resize_input
from lookalike.kernels.models.model_file import ModelFile, Original
from lookalike.kernels.models.original import keep_original
from lookalike.kernels.models.pca import Moments, fit_projection
from lookalike.kernels.training.augment import make_augmenter
from lookalike.kernels.training.training_data import UNKNOWN, TrainingData, draw_balanced_batches, group_drawable

Rows = NDArray[np.int64]
Features = Callable[[Tensor], Tensor]
"""uint8 pictures (n, px, px, 3) on the CPU -> embeddings (n, dim) on the device of the training."""

_BATCH = 64
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_KEPT_BYTES = 2**30
_NETWORK_RATE = 0.3  # of the projection's learning rate, for what was trained long before


@dataclass(frozen=True)
class Training:
    """What each process is given: the training set below `folder`, and the model file `out` that shall come of it.

    A `checkpoint` at that uri lets the same training go on where it was stopped.
    """

    folder: str
    out: str
    checkpoint: str
    model: ModelSettings
    settings: FineTuneSettings
    threads: int


@dataclass
class Progress:
    """An epoch's figures each: mean `loss`, seconds, and `recall@1` and `queries` held out, by kind of label."""

    epochs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def best(self) -> int:
        """Number of the epoch with the highest mean recall; 0 is the model before any training."""
        return int(np.argmax([mean_recall(epoch) for epoch in self.epochs]))


def mean_recall(epoch: dict[str, Any]) -> float:
    """Over the queries of all kinds of labels, so that chance in a kind of few does not decide."""
    return float(np.average(list(epoch["recall@1"].values()), weights=list(epoch["queries"].values())))


def train(training: Training) -> Progress:
    """Train until recall on held-out pictures no longer grows, and write the best as `training.out`.

    Raises ModelInvalid, TrainingImpossible.
    """
    rank, processes, device = _join_processes()
    _keep_memory()
    torch.set_num_threads(training.threads)
    torch.manual_seed(training.settings.seed)
    labels = training.settings.labels
    data = TrainingData(training.folder, "train", labels, rank, processes)
    held_out = TrainingData(training.folder, "validation", labels)
    with ThreadPoolExecutor(2 * training.threads) as pool:
        file = model_file.resolve(training.model)
        kept = _keep_original(file, training, data, held_out, pool, device)
        base = replace(file, original=None)
        model = _build_sized(base, training)
        trainer = _Trainer(training, base, model, _build_learner(model, training, data, pool, device), kept, pool)
        trainer.go_on(data, held_out, processes)
    if _is_first():
        model_file.write(training.out, trainer.build_model_file())
    if processes > 1:
        dist.barrier()
        dist.destroy_process_group()
    return trainer.progress


def _keep_memory() -> None:
    """Let what is freed stay with this process, where the C library is glibc: see mallopt(3).

    Else the system takes the memory of each layer's output away and clears it for the next: half of the time on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _join_processes() -> tuple[int, int, torch.device]:
    """Rank and number of the processes that train together, as torchrun tells them, and this one's device."""
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if processes > 1:
        dist.init_process_group("nccl" if cuda else "gloo")
    return rank, processes, device


class _Learner(nn.Module):
    """uint8 pictures -> L2-normalised embeddings, by the model's `features` and a projection that is trained."""

    def __init__(self, model: Model, layers: Sequence[str], features: Features, axes: Projection) -> None:
        super().__init__()
        self.network = model.module.parts[0].network
        self.features = features
        known = dict(self.network.named_modules())
        if unknown := [layer for layer in layers if layer not in known]:
            raise ModelInvalid(
                f"fine_tune.layers: no layer {', '.join(unknown)} in {model.model_id}; "
                f"such as {', '.join(name for name in list(known)[-20:] if name)}"
            )
        names = [name for name, _ in self.network.named_parameters()]
        self.tuned = [name for name in names if any(name.startswith(f"{layer}.") for layer in layers)]
        for name in self.tuned:
            self.network.get_parameter(name).requires_grad_(True)
        weight, bias = axes
        self.projection = nn.Linear(weight.shape[1], weight.shape[0])
        self.projection.load_state_dict({"weight": weight, "bias": bias})

    def forward(self, pictures: Tensor) -> Tensor:
        return nn.functional.normalize(self.projection(self.features(pictures)), dim=1)

    def collect_trained(self) -> dict[str, Tensor]:
        """The tensors that training changes, by name."""
        tensors: dict[str, Tensor] = {f"network.{name}": self.network.get_parameter(name) for name in self.tuned}
        return tensors | {f"projection.{name}": value for name, value in self.projection.named_parameters()}

    def restore(self, values: dict[str, Tensor]) -> None:
        """Set the tensors that `collect_trained` names."""
        with torch.no_grad():
            for name, value in self.collect_trained().items():
                value.copy_(values[name])


def _build_learner(
    model: Model, training: Training, data: TrainingData, pool: ThreadPoolExecutor, device: torch.device
) -> _Learner:
    """The model with a projection on the main axes of the training pictures. All processes take the first one's."""
    features = _choose_features(model, training, device)
    embeddings = _embed_all(features, data, model.preprocessing.size_px, pool)
    axes = fit_projection(Moments.of(embeddings), min(training.settings.dim, model.dim), whitening=0.0)
    return _Learner(model, training.settings.layers, features, axes).to(device)


def _build_sized(file: ModelFile, training: Training) -> Model:
    """The model in `file`, for pictures of the training's size."""
    model = build_model(file, training.model.name)
    return resize_input(model, training.settings.size_px) if training.settings.size_px else model


@dataclass(frozen=True)
class _Kept:
    """What the new model keeps of the original network, and that part of the held-out pictures' embeddings (n, d)."""

    original: Original
    held_out: NDArray[np.float32]


def _keep_original(
    base: ModelFile,
    training: Training,
    data: TrainingData,
    held_out: TrainingData,
    pool: ThreadPoolExecutor,
    device: torch.device,
) -> _Kept | None:
    """Keep what the base has kept already, or else what `original_share` asks for."""
    if not (base.original or training.settings.original_share):
        return None
    model = _build_sized(ModelFile(base.original_settings), training)
    features = _choose_features(model, training, device)
    if base.original:
        original = replace(base.original, joined=())
    else:
        embeddings = torch.from_numpy(_embed_all(features, data, model.preprocessing.size_px, pool))
        share, dim = training.settings.original_share, training.settings.original_dim
        original = keep_original(model.module.parts[0], embeddings, share, dim)
    part = _embed_all(features, held_out, model.preprocessing.size_px, pool)
    if len(held_out):
        weight, bias = (tensor.numpy() for tensor in original.projection)
        part = part @ weight.T + bias
        part = part / np.linalg.norm(part, axis=1, keepdims=True)
    return _Kept(original, part)


def _choose_features(model: Model, training: Training, device: torch.device) -> Features:
    """The model's embeddings; by the engine of `embed` where it is faster, on a CPU, and the network stays as it is."""
    if device.type == "cpu" and not training.settings.layers:
        forward = choose_engine(model, "auto", training.threads, "cpu")
        return lambda pictures: torch.from_numpy(forward(pictures.numpy()))
    module = model.module.to(device).to(memory_format=torch.channels_last)  # half as fast again on a CPU
    return lambda pictures: module(pictures.to(device))


class _Trainer:
    """Trains a model epoch by epoch. `progress` holds what is done so far."""

    def __init__(
        self,
        training: Training,
        base: ModelFile,
        model: Model,
        learner: _Learner,
        kept: _Kept | None,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.training, self.base, self.model, self.learner, self.kept = training, base, model, learner, kept
        self.pool = pool
        self.device = learner.projection.weight.device
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        rate = training.settings.learning_rate
        groups = [{"params": list(learner.projection.parameters()), "lr": rate}]
        if tuned := [learner.network.get_parameter(name) for name in learner.tuned]:
            groups.append({"params": tuned, "lr": _NETWORK_RATE * rate})
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        self.miner, self.loss, self.triplet_loss = MultiSimilarityMiner(), MultiSimilarityLoss(), TripletMarginLoss()

    def go_on(self, data: TrainingData, held_out: TrainingData, processes: int) -> None:
        """Train from the checkpoint, if there is one, to the end."""
        settings = self.training.settings
        learner: nn.Module = DistributedDataParallel(self.learner) if processes > 1 else self.learner
        batches = _agree_on_least(
            max(1, len(data) // (settings.classes_per_batch * settings.pictures_per_class)), processes
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            [group["lr"] for group in self.optimizer.param_groups],
            total_steps=settings.epochs * batches,
        )
        self._read_checkpoint(schedule)
        while not self._is_over():
            began = time.monotonic()
            epoch = len(self.progress.epochs)
            figures: dict[str, Any] = {"epoch": epoch}
            if epoch:  # the first is the model before training
                figures["loss"] = self._train_epoch(learner, data, schedule, epoch, batches)
            figures |= _take_first(self._measure_recall(held_out), processes)
            figures["seconds"] = round(time.monotonic() - began, 1)
            self.progress.epochs.append(figures)
            if self.progress.best == epoch:
                self.best = {
                    name: value.detach().cpu().clone() for name, value in self.learner.collect_trained().items()
                }
            if _is_first():
                print(_format_epoch(figures), flush=True)  # what a process prints, TorchDistributor passes on
                self._write_checkpoint(schedule)

    def _is_over(self) -> bool:
        done, settings = len(self.progress.epochs) - 1, self.training.settings
        return done >= settings.epochs or (done >= 0 and done - self.progress.best >= settings.patience)

    def _train_epoch(self, learner: nn.Module, data: TrainingData, schedule: Any, epoch: int, batches: int) -> float:
        """One pass; gives the mean loss."""
        losses = []
        for codes, pictures, triplets in self._batches(data, epoch, batches):
            loss = self._compute_loss(learner(pictures), codes, triplets)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            schedule.step()
            losses.append(loss.item())
        return float(np.mean(losses))

    def _compute_loss(self, embeddings: Tensor, codes: Tensor, triplets: int) -> Tensor:
        """Of embeddings of the classes `codes`, and behind them of the three pictures of each of `triplets`."""
        ours = embeddings[: len(codes)]
        total: Tensor = self.loss(ours, codes, self.miner(ours, codes))
        if triplets:
            places = torch.arange(len(codes), len(embeddings), device=self.device).reshape(triplets, 3)
            unused = torch.arange(len(embeddings), device=self.device)
            total = total + self.triplet_loss(embeddings, unused, places.unbind(dim=1))
        return total

    def _batches(self, data: TrainingData, epoch: int, batches: int) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Classes, augmented pictures and number of triplets of each batch. The next is made while one trains."""
        settings = self.training.settings
        seed = settings.seed + 1_000 * epoch
        first = epoch * batches
        drawn = _draw_batches(data, settings, first, batches, seed)
        order = np.random.default_rng(seed).permutation(len(data.triplets))
        augmented = make_augmenter(self.model.preprocessing.size_px, settings.augmentation, settings.seed)

        def make_batch(number: int, codes: Rows, rows: Rows, triplets: Rows) -> tuple[Tensor, Tensor, int]:
            pictures = data.pictures(np.concatenate([rows, triplets.ravel()]), self.pool)
            return torch.from_numpy(codes).to(self.device), augmented(pictures, first + number), len(triplets)

        with ThreadPoolExecutor(1) as ahead:
            parts = (data.triplets[part] for part in np.array_split(order, batches))
            work = (
                ahead.submit(make_batch, number, *labelled, part)
                for number, (labelled, part) in enumerate(zip(drawn, parts, strict=True))
            )
            current = next(work)
            for following in work:  # which submits one batch more, made while the current one is trained on
                yield current.result()
                current = following
            yield current.result()

    def _measure_recall(self, held_out: TrainingData) -> dict[str, dict[str, float]]:
        """recall@1 and the number of queries by kind of label, each held-out picture a query among the others."""
        rows = np.arange(len(held_out))
        embeddings = _embed_all(self.learner, held_out, self.model.preprocessing.size_px, self.pool)
        if self.kept:
            share = self.kept.original.share
            parts = (1 - share) ** 0.5 * embeddings, share**0.5 * self.kept.held_out
            embeddings = np.concatenate(parts, axis=1).astype(np.float32)
        labels = [np.where(codes == UNKNOWN, NO_LABEL, codes) for codes in held_out.labels.values()]
        rankings = rank_gallery(embeddings, labels, [Block(embeddings, labels, rows, rows)], 1)
        hits_by_kind = {
            kind: ranking.relevant[ranking.total > 0, 0]
            for kind, ranking in zip(held_out.labels, rankings, strict=True)
            if ranking.total.any()
        }
        if not hits_by_kind:
            raise TrainingImpossible(
                "no two held-out pictures have a label in common, so nothing tells whether training helps: "
                "raise fine_tune.validation_share, or give more pictures"
            )
        return {
            "recall@1": {kind: round(float(hits.mean()), 4) for kind, hits in hits_by_kind.items()},
            "queries": {kind: len(hits) for kind, hits in hits_by_kind.items()},
        }

    def build_model_file(self) -> ModelFile:
        """Return the model as the best epoch left it."""
        network = {
            name.removeprefix("network."): value for name, value in self.best.items() if name.startswith("network.")
        }
        pair = self.best["projection.weight"], self.best["projection.bias"]
        figures = {"epochs": self.progress.epochs, "best": self.progress.best}
        return ModelFile(
            self.base.settings,
            {**self.base.network, **network},
            (*self.base.projections, pair),
            self.kept.original if self.kept else None,
            figures,
        )

    def _write_checkpoint(self, schedule: Any) -> None:
        state = {
            "fingerprint": self._describe_training(),
            "epochs": json.dumps(self.progress.epochs),
            "best": self.best,
            "trained": self.learner.collect_trained(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": schedule.state_dict(),
        }
        with files.write_atomically(self.training.checkpoint) as path:
            torch.save(state, path)

    def _read_checkpoint(self, schedule: Any) -> None:
        uri = self.training.checkpoint
        try:
            content = files.read_bytes(uri)
        except FileNotFoundError:
            return
        try:
            state = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
            fingerprint = state["fingerprint"]
        except Exception as error:  # what a damaged file raises depends on where it is damaged
            raise ModelInvalid(f"the checkpoint {uri} is damaged: delete it to start anew") from error
        if fingerprint != self._describe_training():
            raise ModelInvalid(
                f"the checkpoint {uri} is of a training of another model or with other settings: delete it to start "
                "anew, or give another --out"
            )
        self.progress.epochs = json.loads(state["epochs"])
        self.best = state["best"]
        self.learner.restore(state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])

    def _describe_training(self) -> str:
        """A text of all that must be the same if training is to go on from a checkpoint."""
        shapes = {name: list(value.shape) for name, value in self.learner.collect_trained().items()}
        settings = self.training.settings.model_dump(mode="json", exclude={"max_forgotten"})
        return json.dumps([self.model.model_id, shapes, settings])


def _draw_batches(
    data: TrainingData, settings: FineTuneSettings, first: int, batches: int, seed: int
) -> Iterator[tuple[Rows, Rows]]:
    """Classes and rows of batches number `first` and on, each balanced by one kind of label."""
    # In a process's share of the pictures, a kind may have no two classes to tell apart.
    kinds = [codes for codes in data.labels.values() if len(group_drawable(codes)) > 1] or [*data.labels.values()]
    share = -(-batches // len(kinds))
    size = settings.classes_per_batch, settings.pictures_per_class, share
    drawn = [draw_balanced_batches(codes, *size, seed + place) for place, codes in enumerate(kinds)]
    for number in range(first, first + batches):
        place = number % len(kinds)
        rows = next(drawn[place])
        yield kinds[place][rows], rows


def _format_epoch(epoch: dict[str, Any]) -> str:
    recall = ", ".join(f"same {kind} {value:.3f}" for kind, value in epoch["recall@1"].items())
    loss = f"loss {epoch['loss']:.3f}, " if "loss" in epoch else ""
    return f"epoch {epoch['epoch']}: {loss}recall@1 {recall} ({epoch['seconds']:.0f} s)"


def _embed_all(module: Features, data: TrainingData, size_px: int, pool: ThreadPoolExecutor) -> NDArray[np.float32]:
    """(n, dim) embeddings of all pictures as they are, in order."""
    resized = make_augmenter(size_px, 0.0, 0)
    parts = []
    with torch.inference_mode():
        for rows in np.array_split(np.arange(len(data)), max(1, len(data) // _BATCH)):
            if len(rows):
                parts.append(module(resized(data.pictures(rows, pool), 0)).cpu().numpy())
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def _agree_on_least(number: int, processes: int) -> int:
    """Return the least of all processes' numbers. They wait for each other, so they must go through as many batches."""
    every: list[int] = [number] * processes
    if processes > 1:
        dist.all_gather_object(every, number)
    return min(every)


def _take_first(value: Any, processes: int) -> Any:
    """Return the first process's value, so that all end after the same epoch."""
    shared = [value]
    if processes > 1:
        dist.broadcast_object_list(shared)
    return shared[0]


def _is_first() -> bool:
    return int(os.environ.get("RANK", 0)) == 0
