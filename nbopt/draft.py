"""A candidate in the making, and what a technique may use to make it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nbopt.batches import Inputs, map_leaves
from nbopt.errors import DataError, ModelError
from nbopt.frameworks import Exported, Fitting, Framework, Signature
from nbopt.frozen import Frozen, join_ragged
from nbopt.measurement.metrics import metric_of
from nbopt.measurement.predictions import prepare
from nbopt.progress import ProgressCallback, silent
from nbopt.runtimes import Runtime
from nbopt.space import Dimension, Search
from nbopt.training import TrainingPlan, TrainingRecord
from nbopt.workload import Workload


@dataclass(frozen=True)
class Deployed:
    """Say what a model is where it will run.

    Args:
        runtime: The runtime's title.
        size_bytes: Bytes of the exported file.
        latency_ms: Median latency of one row.
    """

    runtime: str
    size_bytes: int
    latency_ms: float


@dataclass(frozen=True)
class Context:
    """Give a technique what it may use beside the draft.

    Args:
        workload: The user's model and data; never mutated.
        seed: Seed of everything random.
        progress: Told how far the work has come.
        max_drop: Quality that the user allows to be lost, in the metric's own units; None where nobody said.
        max_size: Largest file in bytes that the user allows.
        max_latency: Longest median latency of one row in milliseconds that the user allows.
        deploy: Gives the size and latency that a model has where it will run; None where nothing is measured.
        where: Runtime and threads by which `deploy` measures, "" likewise.
        home: Folder of the store, where searches are kept too; None takes the usual one.
    """

    workload: Workload
    seed: int = 0
    progress: ProgressCallback = silent
    max_drop: float | None = None
    max_size: float | None = None
    max_latency: float | None = None
    deploy: Callable[[Any], Deployed] | None = None
    where: str = ""
    home: Path | None = None

    def score(self, model: Any, rows: Frozen | None = None) -> float:
        """Return a model's quality on the selection rows, in the metric's own units.

        Args:
            model: The framework's model.
            rows: Some of the selection rows; None takes all.
        """
        if rows is None:
            return self.quality(self.outputs(model))
        outputs = [self.workload.framework.predict(model, inputs) for inputs in rows.batches()]
        return self.quality(join_ragged(outputs), rows)

    def outputs(self, model: Any, most: int | None = None) -> Any:
        """Return a model's outputs for the selection rows, or for the first of them."""
        outputs: list[Any] = []
        framework = self.workload.framework
        if framework.in_training_mode(model):
            model = framework.clone(model)  # once: `predict` would copy it for each batch
        for inputs in self.workload.select_rows.batches():
            outputs.append(framework.predict(model, inputs))
            if most is not None and sum(map(len, outputs)) >= most:
                break
        return join_ragged(outputs)

    def quality(self, raw: Any, rows: Frozen | None = None) -> float:
        """Return the metric of outputs for the first selection rows, or of some of them, in its own units.

        Raises:
            DataError: The selection rows have no labels.
        """
        metric = metric_of(self.workload.metric, output=self.workload.output)
        rows = self.workload.select_rows if rows is None else rows
        if rows.targets is None:
            raise DataError("labels in valid, to select by", "rows without", "give valid=(x, y)")
        weight = None if rows.weight is None else rows.weight[: len(raw)]
        return metric.of(prepare(rows.targets[: len(raw)], raw, metric.output, weight))

    def trained(self, model: Any, plan: TrainingPlan, begin: Sequence[Callable[[Any, int], Any]] = ()) -> Trained:
        """Return a copy of a model after a training, the best state on the selection rows kept; see `Draft.begin`.

        Raises:
            DataError: There is no train data, or it can't be used.
            TrainingError: It diverged.
        """
        fitting, framework = self.fitting(), self.workload.framework
        twin = framework.clone(model)
        for each in begin:
            twin = each(twin, plan.seed)
        return Trained(twin, plan, framework.fit(twin, plan, fitting), len(begin))

    def fitting(self, **changes: Any) -> Fitting:
        """Return what a candidate is trained against: train, and the selection rows to judge by.

        Args:
            changes: Fields of the `Fitting` that shall be others.

        Raises:
            DataError: There is no train data.
        """
        workload = self.workload
        if workload.train is None:
            raise DataError("train data, to train on", "none", "Workload(model, train=(x, y), valid=(x, y))")
        usual = Fitting(
            split=workload.train,
            loss=workload.loss,
            score=self.score,
            greater_is_better=metric_of(workload.metric, output=workload.output).greater_is_better,
            progress=self.progress,
            valid=workload.select,
        )
        return replace(usual, **changes)

    def lost(self, before: float, after: float) -> float:
        """Return how much quality was lost, in the metric's own units; below 0 where some was gained."""
        greater = metric_of(self.workload.metric, output=self.workload.output).greater_is_better
        return before - after if greater else after - before

    @property
    def two_rows(self) -> Inputs:
        """Return inputs of two rows, which a model may be run on to see what its parts give."""
        inputs: Inputs = map_leaves(lambda leaf: np.repeat(leaf, 2, axis=0), self.workload.signature.example)
        return inputs

    def rng(self) -> np.random.Generator:
        """Return a generator that starts from the seed."""
        return np.random.default_rng(self.seed)


def lowering_module(context: Context, prefix: str, word: str) -> Any:
    """Return the module that lowers a technique to the workload's framework: its name follows the prefix.

    Raises:
        ModelError: There is none.
    """
    framework = context.workload.framework
    name = f"{prefix}{framework.name}"
    if find_spec(name) is None:
        raise ModelError(
            f"a model of a framework that {word} knows",
            f"{context.workload.name}, a model of {framework.name}",
            "build it with keras.layers, copy the weights with new.set_weights(old.get_weights()), and bind that",
        )
    return importlib.import_module(name)


@dataclass(frozen=True)
class Lowered:
    """Say what a lowering wrote.

    Args:
        exported: The file.
        precision: Precision that the runtime shall execute it in (a `Manifest.precision`).
        notes: What a reader must know (where calibration rows came from, what stayed in float).
        sensitivity: What was measured of single layers: {"what": ..., "layers": {name: value}, "kept": [name, ...]},
            {} where nothing was.
    """

    exported: Exported
    precision: str
    notes: tuple[str, ...] = ()
    sensitivity: dict[str, Any] = field(default_factory=dict)


class Lowering(Protocol):
    """A step on the exported file, for one runtime, after training: post-training quantization."""

    def refuses(self, runtime: Runtime) -> str:
        """Return why it has no way for this runtime, "" where it has."""
        ...

    def __call__(
        self, model: Any, signature: Signature, source: Exported, runtime: Runtime, folder: Path, context: Context
    ) -> Lowered:
        """Write the changed artifact into `folder`.

        Args:
            model: The framework's model, for a converter that starts there.
            signature: The model's inputs.
            source: The float artifact in the runtime's form.
            runtime: Where it will run.
            folder: Where to write.
            context: Workload, seed, progress.

        Raises:
            ExportError: This runtime has no way to do it; the reason becomes the row's.
        """
        ...


@dataclass(frozen=True)
class Trained:
    """Hold a model that was trained.

    Args:
        model: With the kept state.
        plan: By which it was trained, its seed too.
        record: What the training did.
        begun: How many steps it began with.
    """

    model: Any
    plan: TrainingPlan
    record: TrainingRecord
    begun: int = 0


@dataclass(frozen=True)
class Draft:
    """Hold a candidate in the making. A technique returns a new draft; the loop trains, finishes and exports it.

    Args:
        model: The framework's model; techniques replace it, on a copy.
        plan: The one training to come. Techniques adjust it.
        ready: Called in order once every technique of the recipe is in the draft, and before anything is trained: for
            what depends on the whole plan.
        hold: Called with the model after each training step (masks that must hold).
        pace: Called with the model and the share of the training that is done; see `Fitting.pace`.
        narrows: `finish` takes units out of the layers that there are now: no later step may put others in between.
        finish: Called in order after training, model to model (masks made permanent and removed).
        deploy: Called in order after `finish`, draft to draft: what is worth doing for the file that ships alone, and
            says what it did (BatchNorm folded, Dropout taken out).
        lower: Steps on the exported file.
        notes: What must be said on the row: fallbacks first.
        dtype: Precision asked for, "" where the technique does not touch it.
        sensitivity: What was measured of single layers, as in `Lowered`.
        control: The untouched model, given the same training, must stand beside the result: what that training alone
            gains or spoils is not the technique's.
        bare: Fields of the plan that the control does not get, with what it has in their place.
        plain: The untouched model after a training, where a technique had to look at it: the control of that plan.
        space: What a search may change, in all techniques together: one training for each trial.
        search: How it is searched; None with dimensions takes the default.
        begin: Called in order with the copy that is to be trained and the seed, model to model (weights drawn anew).
        control_plan: The training of the control, where it is not the draft's own: what the technique is compared with
            is the untouched model, begun alike and trained by this.
        tested: What was measured before the training, as plain data of `Run.search`.
        interrupted: The user interrupted a search, and this is the best so far: it is measured, and nothing more done.
        settled: Names of dimensions that a step was told the value of: no other step searches them.
    """

    model: Any
    plan: TrainingPlan = field(default_factory=TrainingPlan)
    ready: tuple[Callable[[Draft, Context], Draft], ...] = ()
    hold: tuple[Callable[[Any], None], ...] = ()
    pace: tuple[Callable[[Any, float], bool], ...] = ()
    narrows: bool = False
    finish: tuple[Callable[[Any], Any], ...] = ()
    deploy: tuple[Callable[[Draft], Draft], ...] = ()
    lower: tuple[Lowering, ...] = ()
    notes: tuple[str, ...] = ()
    dtype: str = ""
    sensitivity: dict[str, Any] = field(default_factory=dict)
    control: bool = False
    bare: dict[str, Any] = field(default_factory=dict)
    plain: Trained | None = None
    space: tuple[Dimension, ...] = ()
    search: Search | None = None
    begin: tuple[Callable[[Any, int], Any], ...] = ()
    control_plan: TrainingPlan | None = None
    tested: dict[str, Any] = field(default_factory=dict)
    interrupted: bool = False
    settled: frozenset[str] = frozenset()

    @classmethod
    def of(cls, workload: Workload) -> Draft:
        """Return the draft that a recipe begins with: the bound model, and steps that suit the rows of train."""
        return cls(workload.model, TrainingPlan().suited(None if workload.train is None else workload.train.whole_rows))

    def with_(self, **changes: Any) -> Draft:
        """Return the draft with some fields changed."""
        return replace(self, **changes)

    def from_scratch(self, framework: Framework) -> Draft:
        """Return the draft with its weights drawn anew before its training."""
        if framework.initialise in self.begin:
            return self
        return replace(self, begin=(*self.begin, framework.initialise))

    def searching(self, *dimensions: Dimension) -> Draft:
        """Return the draft with dimensions added; of one name the first stays, or one of all its choices and more."""
        there = {each.name: each for each in self.space}
        for each in dimensions:
            if each.name not in self.settled:
                known = there.get(each.name)
                there[each.name] = each if known is None or each.extends(known) else known
        return replace(self, space=tuple(there.values()))

    def settling(self, name: str) -> Draft:
        """Return the draft without the dimension of a name, before and after this step."""
        space = tuple(each for each in self.space if each.name != name)
        return replace(self, space=space, settled=self.settled | {name})

    def noted(self, *notes: str) -> Draft:
        """Return the draft with notes added."""
        return replace(self, notes=self.notes + notes)
