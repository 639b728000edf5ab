"""Who teaches: one model or several, asked once for each row, and how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nbopt.batches import Inputs, leaves
from nbopt.data import Split
from nbopt.draft import Context
from nbopt.errors import DataError, ModelError, OptionError, nearest
from nbopt.frozen import join_ragged
from nbopt.measurement.metrics import metric_of
from nbopt.outputs import infer_output
from nbopt.overlap import hash_split, overlap_of
from nbopt.teaching import Remembered, axis_of, family_of, in_kind, mean_of, normal_form, pairs_of
from nbopt.techniques._distill.lowering import lowering_of

Array = np.ndarray[Any, Any]

TRIED_ROWS = 8
"""Rows that a loss is tried on: those that compare rows with each other need several."""


@dataclass(frozen=True)
class Panel:
    """Hold the teachers of a workload.

    Args:
        models: The teachers, in evaluation mode; none of them is changed.
        kinds: What the output of each means.
        kind: What the output of the workload's model means, and so the student's.
        axis: Where classes are in it, 1 or -1.
        own: The teacher is the workload's own model.
        outputs: What they say together of a batch, in normal form.
    """

    models: tuple[Any, ...]
    kinds: tuple[str, ...]
    kind: str
    axis: int
    own: bool
    outputs: Remembered

    @classmethod
    def of(cls, given: Any, context: Context) -> Panel:
        """Return the teachers that an option names; None means the workload's own model.

        Raises:
            ModelError: One is no model of the framework, does not take the inputs, or its outputs have another shape.
        """
        workload = context.workload
        framework = workload.framework
        models = _listed(given, workload.model)
        for model in models:
            if not framework.owns(model):
                raise ModelError(
                    f"teachers of {framework.name}, as the student",
                    f"a {type(model).__name__}",
                    "--teacher with a model of the same framework",
                )
        # A copy only where the model is in training mode: `predict` would copy it again for each batch.
        models = tuple(framework.clone(model) if framework.in_training_mode(model) else model for model in models)
        inputs, targets = _first(context)
        own = given is None
        raws = [_said("teacher", model, inputs, context) for model in models]
        for model, raw in zip(models, raws, strict=True):
            _refuse_shape("teacher", model, raw, context)
        axis = axis_of(workload.output, raws[0].shape[1:], targets)
        kinds = tuple(
            workload.output if model is workload.model or own else _kind_of(model, raw, targets, context)
            for model, raw in zip(models, raws, strict=True)
        )
        family = family_of(workload.output)
        for model, kind in zip(models, kinds, strict=True):
            if family_of(kind) != family:
                raise ModelError(
                    f"a teacher whose output means what the student's does, {workload.output.replace('_', ' ')}",
                    f"{type(model).__name__}, whose output is {kind.replace('_', ' ')}",
                    "--teacher with a model for the same labels",
                )

        def ask(batch: Inputs) -> Array:
            said = [normal_form(framework.predict(m, batch), k, axis) for m, k in zip(models, kinds, strict=True)]
            return mean_of([each.reshape(said[0].shape) for each in said], family)

        return cls(models, kinds, workload.output, axis, own, Remembered(ask))

    def quality(self, context: Context) -> float:
        """Return how good the teachers are together on the selection rows."""
        outputs = [
            in_kind(self.outputs(batch), self.kind, self.axis) for batch in context.workload.select_rows.batches()
        ]
        return context.quality(join_ragged(outputs))

    @cached_property
    def words(self) -> str:
        """Return who teaches, in words."""
        if self.own:
            return "the bound model"
        names = [type(model).__name__ for model in self.models]
        return names[0] if len(names) == 1 else f"{len(names)} teachers ({', '.join(dict.fromkeys(names))})"

    def notes(self, student: Any, context: Context) -> list[str]:
        """Return who teaches and how good that is, and that it is worse than the student where it is.

        Args:
            student: The student as it starts; None where it starts from nothing.
            context: Whose selection rows judge.
        """
        workload = context.workload
        if workload.select_rows.targets is None:
            return [f"taught by {self.words}"]
        name = metric_of(workload.metric, output=workload.output).name
        quality = self.quality(context)
        told = [f"taught by {self.words}, {name} {quality:.4f} on {workload.select.name}"]
        rivals = [] if self.own else [("the bound model", workload.model)]
        if student is not None:
            rivals.append(("the student before it learns", student))
        for who, model in rivals:
            other = context.score(model)
            if context.lost(other, quality) > 0:
                told.append(
                    f"the teacher is worse than {who}: {name} {quality:.4f} against {other:.4f} on "
                    f"{workload.select.name}; see the row of labels alone (alpha 0)"
                )
        return told


def _kind_of(model: Any, raw: Array, targets: Array | None, context: Context) -> str:
    """Return what a teacher's output means.

    Where its last layer does not tell, labels don't either whether 0 and 1 are classes, a yes or no each, or values:
    the workload's output does, whose loss has told, and the teacher's values tell the form.
    """
    workload = context.workload
    declared = workload.framework.declared_output(model, None)
    kind, family = infer_output(raw, targets, declared)[0], family_of(workload.output)
    if declared is not None or family_of(kind) == family:
        return kind
    if family == "values":
        return workload.output
    if family == "classes":
        return _of_classes(raw)
    if kind == "probabilities":
        return kind  # of one class among several, since they sum to 1
    inside = bool(np.all((raw >= 0) & (raw <= 1)))
    return f"{workload.output.partition('_')[0]}_{'probabilities' if inside else 'logits'}"


def _of_classes(raw: Array) -> str:
    """Return the form of outputs for one class among several, by their values."""
    return infer_output(raw, raw.argmax(-1), None)[0]


def _listed(given: Any, own: Any) -> tuple[Any, ...]:
    if given is None:
        return (own,)
    return tuple(given) if isinstance(given, (tuple, list)) else (given,)


def _first(context: Context) -> tuple[Inputs, Array | None]:
    rows = context.workload.select_rows
    inputs = next(rows.batches())
    count = len(next(iter(inputs.values() if isinstance(inputs, dict) else inputs)))
    return inputs, None if rows.targets is None else rows.targets[:count]


def refuse_other_shape(role: str, model: Any, context: Context) -> None:
    """Refuse a model whose outputs have another shape, or another meaning, than the workload's.

    Raises:
        ModelError: They have, or the model does not take the inputs.
    """
    workload = context.workload
    inputs, targets = _first(context)
    raw = _said(role, model, inputs, context)
    _refuse_shape(role, model, raw, context)
    kind: str | None = workload.framework.declared_output(model, None)
    several = family_of(workload.output) == "classes" and raw.ndim > 1 and raw.shape[-1] > 1
    if kind is None and several and axis_of(workload.output, raw.shape[1:], targets) == -1:
        kind = _of_classes(raw)  # a softmax that is no layer shows in what it gives
    alike = {workload.output, *(["log_probabilities"] if workload.output == "logits" else [])}
    if kind is not None and kind not in alike:
        raise ModelError(
            f"a {role} whose output is {workload.output.replace('_', ' ')}, as that of {workload.name}",
            f"{type(model).__name__}, whose output is {kind.replace('_', ' ')}",
            "let both end alike: with a softmax or sigmoid, or without",
        )


def _said(role: str, model: Any, inputs: Inputs, context: Context) -> Array:
    """Return a model's outputs.

    Raises:
        ModelError: It does not take the inputs.
    """
    workload = context.workload
    try:
        return workload.framework.predict(model, inputs)
    except Exception as error:
        # Whatever the user's code raises: it is passed on with what the model was given.
        raise ModelError(
            f"a {role} that takes the inputs of {workload.name}",
            f"{type(model).__name__} raised {_first_line(error)}",
            "give it the same inputs, by the same names",
        ) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _refuse_shape(role: str, model: Any, raw: Array, context: Context) -> None:
    wanted = context.workload.framework.predict(context.workload.model, _first(context)[0]).shape
    if [size for size in raw.shape if size != 1] != [size for size in wanted if size != 1]:
        raise ModelError(
            f"a {role} whose outputs have the shape of {context.workload.name}'s, {_text(wanted)}",
            f"{type(model).__name__}, whose outputs are {_text(raw.shape)}",
            "give its last layer as many units",
        )


def _text(shape: Sequence[int]) -> str:
    return f"({', '.join(['rows', *map(str, shape[1:])])})"


def layers_read(loss: Any, student: Any, panel: Panel, context: Context) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the layers of the student and of the first teacher that a loss reads, by trying it on rows of train.

    Raises:
        ModelError: It does not run on what these models give, or the framework takes no such loss.
        OptionError: It reads a layer that is not there, or has weights that nothing would train.
    """
    train = context.workload.train
    assert train is not None  # what needs it was refused before
    batch = next(train.some(TRIED_ROWS, TRIED_ROWS, context.rng()))
    raw = context.workload.framework.predict(student, batch.inputs)
    said, taught = normal_form(raw, panel.kind, panel.axis), panel.outputs(batch.inputs)
    return lowering_of(context).layers_read(loss, (student, panel.models[0]), (said, taught.reshape(said.shape)), batch)


def checked_pairs(hints: Sequence[str], teacher: Any, student: Any, context: Context) -> tuple[tuple[str, str], ...]:
    """Return hint layers as pairs.

    Raises:
        OptionError: There is no such layer, or none that is called and gives a row for each row; the nearest is
            suggested.
        ModelError: The framework can't read layers of such a model.
    """
    pairs = pairs_of(hints)
    for index, (role, model) in enumerate((("teacher", teacher), ("student", student))):
        known = lowering_of(context).layer_names(model, context)
        for pair in pairs:
            if pair[index] not in known:
                raise OptionError(
                    f"distill --hints with layers of the {role} that are called and give a row for each row",
                    repr(pair[index]),
                    nearest(pair[index], known),
                )
    return pairs


def unlabelled(given: Any, context: Context) -> tuple[Split | None, list[str]]:
    """Return data that is learned from the teacher alone, and what must be said of it.

    Raises:
        DataError: It can't be read again on each pass, is empty, or its rows are no inputs of the workload's model.
    """
    if given is None:
        return None, []
    workload, split = context.workload, Split(given, "extra")
    first = split.first()
    try:
        workload.framework.predict(workload.model, first.inputs)
    except Exception as error:
        # Whatever the model raises on rows that it was not made for.
        shapes = ", ".join(_text(np.shape(leaf)) for leaf in leaves(first.inputs))
        raise DataError(
            f"extra rows that {workload.name} takes, as those of train",
            f"rows of shape {shapes}, on which it raised {_first_line(error)}",
            "--extra with the same inputs as train, without labels",
        ) from error
    told = "rows of --extra are learned from the teacher alone"
    unused = "" if first.targets is None else "; the labels that came with them are not used"
    return split, [f"{told}{unused}", *_shared(split, context)]


def _shared(extra: Split, context: Context) -> list[str]:
    """Return what the rows without labels share with those that judge, by content."""
    workload = context.workload
    hashed = hash_split(extra, workload.framework.float_dtype(workload.model))
    judging = {workload.report.name: workload.report_rows, workload.select.name: workload.select_rows}
    notes = []
    for name, rows in judging.items():
        found = overlap_of("--extra", hashed, name, rows.row_digests)
        if found.rows:
            least = "" if found.whole else "at least "
            which = f"{least}{found.rows:,} of {found.of:,} distinct rows of {name} ({found.share:.0%})"
            notes.append(f"{which} are in --extra too: quality on {name} is optimistic for what learns from them")
    return notes
