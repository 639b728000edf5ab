"""Prune: set weights to zero one by one, or take whole channels, heads and hidden units out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from nbopt.draft import Context, Draft
from nbopt.errors import ModelError, OptionError
from nbopt.narrowing import checked, recalibrated
from nbopt.narrowing.lowering import InLayers, Ranking, in_layers, lowering_of
from nbopt.narrowing.masks import magnitude_masks, read_pattern
from nbopt.narrowing.subjects import Choice, Shares, Units, Weights
from nbopt.narrowing.vocabulary import with_shared_rows
from nbopt.options import option
from nbopt.planning import fine_tuning, refuse_quantized
from nbopt.technique import Technique
from nbopt.techniques._prune.holding import Holding
from nbopt.techniques._prune.scan import Scan, scan
from nbopt.techniques._prune.schedules import RAMP, SCHEDULES, default_rounds
from nbopt.techniques._prune.sparse_file import SparseFile, is_last
from nbopt.techniques._prune.trials import Trials
from nbopt.workload import Workload


@dataclass(frozen=True)
class Prune(Technique):
    """Remove the weights, or the units, of least importance, and fine-tune what is left.

    Unstructured: the least important weights become zero (Han et al. 2015, https://arxiv.org/abs/1506.02626). The
    file deflates better; dense kernels are not faster for zeros.
    Structured: whole channels, attention heads and hidden units of recurrent layers are removed with everything that
    depends on them (torch: DepGraph, Fang et al. 2023, https://arxiv.org/abs/2301.12900), so that file and latency
    shrink on every runtime.
    """

    word: ClassVar[str] = "prune"
    summary: ClassVar[str] = "fewer weights, channels, heads or hidden units, then fine-tuning"

    sparsity: float | Literal["auto"] = option(
        0.5,
        "share of weights set to zero, or of channels, heads and hidden units taken out; auto finds the least that "
        "keeps within --max-size and --max-latency, or the most within --max-drop",
        low=0.0,
        high=1.0,
        open_ends=True,
        words=("auto",),
    )
    structured: bool = option(False, "take out whole channels, heads and hidden units instead of single weights")
    importance: str = option(
        "magnitude",
        "what ranks weights: their magnitude; taylor, the square of gradient times weight on train (Molchanov et al. "
        "2019, arXiv:1906.10771); batchnorm, the scale after a channel (Liu et al. 2017, arXiv:1708.06519)",
        choices=("magnitude", "taylor", "batchnorm"),
    )
    scope: str = option(
        "auto",
        "global ranks all layers together, layer takes the same share of each, sensitivity prunes each layer alone "
        "first and gives the share to those that mind least; auto is global for single weights and layer for units; "
        "with auto or layer TF-MOT's prune_low_magnitude prunes tf_keras models by magnitude, each layer alike",
        choices=("auto", "global", "layer", "sensitivity"),
    )
    pattern: str = option(
        "",
        "N:M leaves N of every M neighbours along a layer's inputs, as sparse tensor cores want 2:4 (Mishra et al. "
        "2021, arXiv:2104.08378); it sets the sparsity to 1 - N/M",
    )
    schedule: str = option(
        "one-shot",
        "one-shot prunes before fine-tuning, iterative in equal rounds during it (Han et al. 2015), cubic fast at "
        "first and slowly at the end (Zhu & Gupta 2017, arXiv:1710.01878)",
        choices=SCHEDULES,
    )
    rounds: int = option(
        0, "times that iterative or cubic prunes; 0 for one an epoch, at least 2, or 10 for cubic", low=0, high=1000
    )
    min_count: int = option(
        0,
        "with --structured: rows of embedding tables that a pass over train looks up fewer times become one row, their "
        "mean, as word2vec's min_count leaves rare words out (Mikolov et al. 2013, arXiv:1310.4546; of a BERT's "
        "vocabulary, Abdaoui et al. 2020, arXiv:2010.05609); 0 keeps every row",
        low=0,
    )
    include: tuple[str, ...] = option(
        (),
        "only these layers: names or globs, by commas; none means all that can be, but embedding tables when single "
        "weights go, and what a LayerNorm looks at as a whole when units do: --include takes those in",
    )
    exclude: tuple[str, ...] = option((), "layers to leave as they are: names or globs, by commas")
    sparse_file: bool = option(
        False,
        "leave zeros out of a .tflite file (TensorFlow's Optimize.EXPERIMENTAL_SPARSITY): smaller from a third zeros "
        "on; LiteRT puts them back on loading and is not faster for it",
    )
    epochs: int = option(1, "passes over train to fine-tune; 0 for none", low=0, high=10_000)
    learning_rate: float | None = option(
        None,
        "step size that fine-tuning starts from; none leaves what the recipe has, 0.001 at first; it falls to 0 along "
        "a cosine, unless schedule comes before with another",
        low=0.0,
        high=10.0,
        open_ends=True,
    )

    def apply(self, draft: Draft, context: Context) -> Draft:
        """Return the draft with a pruned copy of the model and fine-tuning in its plan.

        Raises:
            ModelError: There is nothing to prune, or the layers can't be taken apart.
            OptionError: Options don't go together, or name a layer that the model does not have.
        """
        self.check(context.workload)
        refuse_quantized(draft, "prune", "what goes then was quantized for nothing, and its ranges are no longer right")
        if draft.narrows or (self.structured and (draft.hold or draft.pace)):
            raise OptionError(
                "units taken out at once, and before single weights are held at zero",
                "prune after a step whose masks fit no smaller layers",
                "prune --structured | prune",
            )
        lowering = lowering_of(context)
        ranking = Ranking(self.importance, lowering, context)
        subject: Units | Weights
        if self.structured:
            model = draft.model
            if self.min_count:
                model, notes = with_shared_rows(model, lowering, context, self.min_count)
                draft = draft.noted(*notes)
            try:
                traced = lowering.trace(model, context.workload.signature.example)
                subject = Units(traced, ranking, self.include, self.exclude)
            except ModelError as error:
                if model is draft.model:
                    raise
                # Rows of tables are out of it all the same: of tables and one layer nothing else can go.
                return self._fine_tuned(draft.with_(model=model).noted(f"no units were taken out: {error.came}"))
        else:
            pattern = read_pattern(self.pattern) if self.pattern else None
            model = context.workload.framework.clone(draft.model)
            subject = Weights(model, ranking, self.include, self.exclude, pattern)
        draft = draft.noted(*subject.notes)
        found = scan(subject, context) if self.scope == "sensitivity" else None
        share = self._share()
        if share is None:
            plan = fine_tuning(draft, self.epochs, self.learning_rate).adjusted(epochs=self.epochs)
            share, note = Trials(subject, context, lambda s: self._shares(subject, s, found), plan).searched()
            draft = draft.noted(note)
        target = self._shares(subject, share, found)
        if found is not None:
            draft = draft.with_(sensitivity=found.to_dict()).noted(found.note)
        draft = self._put(draft, subject, target, context)
        if not self.structured:
            draft = draft.noted("zeros make the deflated file smaller; dense kernels are not faster for them")
        if self.sparse_file:
            draft = draft.with_(lower=(*draft.lower, SparseFile()), ready=(*draft.ready, is_last))
        return self._fine_tuned(draft)

    def _fine_tuned(self, draft: Draft) -> Draft:
        """Return the draft with fine-tuning in its plan."""
        if not self.epochs:
            return draft
        return draft.with_(plan=fine_tuning(draft, self.epochs, self.learning_rate), control=True)

    def _put(self, draft: Draft, subject: Units | Weights, target: Shares, context: Context) -> Draft:
        """Return the draft with the pruned model, or with the schedule that will prune it."""
        rounds = self.rounds or default_rounds(self.schedule, self.epochs)
        holding: Holding | InLayers = Holding(subject, subject.lowering, target, self.schedule, rounds)
        model = subject.model
        if self._by_layers(subject):
            names, share = list(subject.sizes), max(target.values()) if isinstance(target, Mapping) else target
            wrapped, why = in_layers(subject.lowering, model, names, share, self.schedule, rounds, RAMP)
            if wrapped is not None:
                holding, model = wrapped, wrapped.model
            draft = draft.noted(*filter(None, [wrapped.note if wrapped is not None else why]))
        if self.schedule != "one-shot":
            if isinstance(subject, Units):
                at_once, twin = Holding(subject, subject.lowering, target), context.workload.framework.clone(model)
                at_once.pace(twin, 0.0)
                checked(at_once.finish(twin), context)  # told before the training, not after it
                there = at_once.choice(twin)
                draft = draft.noted(f"{subject.counts(there)} go by the end", *filter(None, [there.short]))
            draft = draft.with_(pace=(*draft.pace, holding.pace), narrows=isinstance(subject, Units))
        else:
            holding.pace(model, 0.0)
            # Of what the framework's own tool holds nothing is known here, and it keeps no layer from being empty.
            choice = holding.choice(model) if isinstance(holding, Holding) else Choice()
            draft = draft.noted(*filter(None, [choice.short]))
            if isinstance(subject, Units):
                # Gone before the training, which is then as fast as the smaller model.
                model, notes = recalibrated(checked(holding.finish(model), context), context)
                return draft.with_(model=model).noted(f"{subject.counts(choice)} were taken out", *notes)
            draft = draft.noted(*filter(None, [subject.lowering.sparse_word(model)]))
        return draft.with_(model=model, hold=(*draft.hold, holding.hold), finish=(*draft.finish, holding.finish))

    def _by_layers(self, subject: Units | Weights) -> bool:
        """Tell whether a framework's own tool would do what is asked for: the same share of each layer by magnitude."""
        plain = self.importance == "magnitude" and self.scope in ("auto", "layer") and not self.pattern
        return plain and isinstance(subject, Weights) and self.sparsity != "auto"

    @property
    def label(self) -> str:
        """Return "prune 0.5 structured" or "prune 0.5 unstructured", and what differs from the default beside that."""
        rest = replace(self, sparsity=0.5, structured=False, epochs=1, learning_rate=None).options_text()
        words = [word.removeprefix("--") for word in rest]
        kind = "structured" if self.structured else "unstructured"
        share = self._share()
        return " ".join([f"prune {'auto' if share is None else f'{share:g}'} {kind}", *words])

    def _share(self) -> float | None:
        """Return the share that goes in the end, None where it is searched."""
        if self.pattern:
            n, m = read_pattern(self.pattern)
            return 1.0 - n / m
        return None if isinstance(self.sparsity, str) else self.sparsity

    def _shares(self, subject: Units | Weights, share: float, found: Scan | None) -> Shares:
        """Return the share over all layers together, or of each."""
        if found is not None:
            return found.shares(share)
        scope = {"auto": "layer" if self.structured else "global"}.get(self.scope, self.scope)
        return share if scope == "global" else dict.fromkeys(subject.sizes, share)

    def check(self, workload: Workload) -> None:
        """Refuse options that would not do what they say."""
        if self.pattern:
            if self.structured:
                raise OptionError("--pattern for single weights", "--structured too", "leave one of them out")
            share = self._share()
            if self.sparsity not in (0.5, share):
                raise OptionError(
                    f"a sparsity of {share:g}, which {self.pattern} is", f"{self.sparsity}", "leave --sparsity out"
                )
            if self.scope in ("global", "sensitivity"):
                raise OptionError("--scope layer with a pattern, which is alike everywhere", f"--scope {self.scope}")
        if self.sparse_file and self.structured:
            raise OptionError("--sparse-file for single weights", "--structured too", "leave one of them out")
        if self.min_count and not self.structured:
            raise OptionError(
                "--min-count with --structured, which takes rows out",
                "--min-count for single weights",
                "prune --structured --min-count 1",
            )
        if self.importance == "batchnorm" and not self.structured:
            raise OptionError(
                "--importance magnitude or taylor for single weights",
                "batchnorm, which ranks channels",
                "prune --structured --importance batchnorm",
            )
        if self.rounds > 1 and self.schedule == "one-shot":
            raise OptionError(
                "--rounds with --schedule iterative or cubic",
                f"{self.rounds} rounds of one-shot",
                "--schedule iterative",
            )
        if self.schedule != "one-shot" and (not self.epochs or workload.train is None):
            raise OptionError(
                f"fine-tuning, during which --schedule {self.schedule} prunes",
                "no train data" if self.epochs else "--epochs 0",
                "--epochs 3 with train data, or --schedule one-shot",
            )
        if self.importance == "taylor" and workload.train is None:
            raise OptionError("train data, whose gradients --importance taylor takes", "none", "--importance magnitude")


__all__ = ["Prune", "magnitude_masks"]
