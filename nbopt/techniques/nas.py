"""Nas: search another architecture, faster and as good, in the user's model or among those that a cell builds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from nbopt.architectures.family import Family
from nbopt.architectures.space import KINDS
from nbopt.controllers import CONTROLLERS
from nbopt.draft import Context, Draft
from nbopt.errors import OptionError
from nbopt.options import option
from nbopt.planning import lengthened, refuse_quantized
from nbopt.studies.asking import TPE
from nbopt.studies.extra import load
from nbopt.technique import Technique
from nbopt.techniques._nas.building import Building, Picked
from nbopt.techniques._nas.choosing import settled
from nbopt.techniques._nas.hunting import RELAXED, Finalist, Hunt
from nbopt.techniques._nas.keeping import Keeper
from nbopt.techniques._nas.purse import CHOSEN, RIVAL_CHOSEN, Purse, budget_of, price_of
from nbopt.techniques._nas.reading import code_of
from nbopt.techniques._nas.remembering import Remembered, going_by, key_of, last, remember
from nbopt.techniques._nas.telling import table_of, words_of
from nbopt.training import TrainingPlan

RANDOM, UNIFORM = "random", "uniform"
WORDS = (*(word for word in CONTROLLERS if word != "chance"), TPE, RELAXED, RANDOM, UNIFORM)

EPOCHS, BUILT_EPOCHS = 3, 10
"""Passes over train where nobody says how many: of a candidate with shared weights, and of one that has none."""

TRIALS, BUILT_TRIALS = 60, 20
"""Candidates likewise: those that are looked at, and those that are trained."""

AGAIN = "what the same search found before in this kernel is taken again"


@dataclass(frozen=True)
class Nas(Technique):
    """Search the architecture that is faster and as good: narrower here, a block less there, a smaller kernel.

    What may change is read from the model. All candidates share the model's weights and learn together for a while, by
    the sandwich rule and from the whole model (Yu & Huang 2019, https://arxiv.org/abs/1903.05134); what each takes is
    told by a table that is measured where it will run; a controller looks at some within a ladder of latencies, or
    within --max-latency; the best of each are trained and measured, and the fastest is taken that surely loses nothing
    (--max-drop). Beside it stand all widths scaled alike and a random search, each at the latency that was reached.
    With a cell's body, which builds a model from `trial` and is trained from scratch, the space is the user's own.
    """

    word: ClassVar[str] = "nas"
    summary: ClassVar[str] = "another architecture, faster and as good: widths, kernels, blocks, or a cell's own space"
    body: ClassVar[Literal["model", "objective", "candidate"]] = "candidate"
    beside_everywhere: ClassVar[bool] = True

    controller: str = option(
        "surrogate",
        "what proposes candidates: surrogate, a Gaussian process, for tens of them; tpe, Optuna's Parzen estimators; "
        "evolution, for thousands (Real et al. 2019, arXiv:1802.01548); policy, by a policy gradient; relaxed, by "
        "gradients of a mixture of all (FBNet, Wu et al. 2019, arXiv:1812.03443); random; uniform scales all widths "
        "alike",
        choices=WORDS,
    )
    change: tuple[str, ...] = option((), "only these of width, kernel, block; none means all that the model has")
    trials: int | None = option(
        None, "candidates that are looked at, 60 where none is given; of a cell's body trained, 20", low=1, high=100_000
    )
    timed: int = option(30, "candidates that are exported and timed for the latency table", low=8, high=10_000)
    shared_epochs: int = option(
        3, "passes over train in which all candidates learn together; 0 judges by the weights as they are", low=0
    )
    finalists: int = option(
        4, "best candidates, from slower to faster, that are trained before one is chosen", low=1, high=20
    )
    epochs: int | None = option(
        None, "passes over train of what is chosen; 3 where no step says more, 10 of a body's", low=0, high=10_000
    )
    learning_rate: float | None = option(
        None,
        "step size that training starts from; 0.001 where no step says another",
        low=0.0,
        high=10.0,
        open_ends=True,
    )
    budget: float | str | None = option(
        None,
        "all that the search may take, table and trainings and rivals with it: a time (20m), or money ('$3') by "
        "--price; it ends inside it with what it has",
        unit="s",
    )
    price: float | str | None = option(None, "what an hour of this machine costs, for --budget in money: 0.30/h")
    build: Any = option(None, "function of a trial that returns an untrained model; a cell's body is one")

    def __post_init__(self) -> None:
        super().__post_init__()
        budget_of(self.budget, price_of(self.price))
        unknown = [kind for kind in self.change if kind not in KINDS]
        if unknown:
            raise OptionError(f"nas --change among {', '.join(KINDS)}", ", ".join(unknown), "--change width,block")
        if self.build is not None and not callable(self.build):
            raise OptionError("nas --build as a function of a trial", f"a {type(self.build).__name__}", "--build make")

    def beside(self) -> tuple[Technique, ...]:
        """Return a random search and uniform scaling, which must stand beside it at the same latency."""
        if self.controller in (RANDOM, UNIFORM):
            return ()
        uniform = replace(self, controller=UNIFORM)
        if self.build is not None:
            uniform = replace(uniform, build=None, shared_epochs=0)  # of the bound model
        return (replace(self, controller=RANDOM), uniform)

    @property
    def label(self) -> str:
        """Return "nas", how it was searched where that is not the default, and what else differs from the default."""
        rest = replace(self, controller="surrogate", build=None).options_text()
        words = [word.removeprefix("--") for word in rest]
        how = {"surrogate": [], UNIFORM: ["uniform widths"], RANDOM: ["random search"]}
        own = ["own space"] if self.build is not None else []
        return " ".join(["nas", *how.get(self.controller, [self.controller]), *own, *words])

    def apply(self, draft: Draft, context: Context) -> Draft:
        """Return the draft with another architecture in place of the model, and its training in the plan.

        Raises:
            ModelError: Nothing in the model can change, or no candidate runs.
            OptionError: Options don't go together, the budget is too small for one candidate, or none is as fast as
                asked for.
            DataError: There is no train data for candidates of a body, or no labels to choose by.
            MissingExtra: The controller is Optuna's, which is not installed.
        """
        refuse_quantized(draft, "nas", "candidates have other weights and other ranges than those that were quantized")
        if draft.hold or draft.pace:
            raise OptionError(
                "nas before what masks weights of the model", "masks, which fit no other architecture", "nas | prune"
            )
        if self.controller == TPE:
            load()  # told before anything is timed or trained, where it is not installed
        if self.build is not None:
            return self._by_hand(draft, context)
        if self.controller in (RANDOM, UNIFORM):
            return self._rival(draft, context)
        key, text, plan = key_of(draft.model, context), self.text(), self._plan(draft.plan, EPOCHS)
        before, by, purse = last(key, text), going_by(plan, context), self._purse()
        if before is not None and before.hunt is not None and isinstance(before.chosen, Finalist) and before.by == by:
            before.again(purse, {RANDOM, UNIFORM})
            draft = draft.with_(tested={**draft.tested, **before.table}).noted(AGAIN, *before.notes)
            return self._put(draft, before.hunt, before.chosen, plan, CHOSEN)
        known = None if before is None else before.hunt
        hunt, keeper = self._hunt(draft, context, purse, known), Keeper.of(key, text, context.home)
        if before is None or known is None:
            keeper.restore(hunt)
        else:
            ended = "went on from where the last one was cut off"
            hunt.notes.append(ended if before.chosen is None else "chosen anew among what the last one looked at")
        hunt.keep = keeper.keep
        kept = Remembered(key, text, purse, hunt, by=by)
        remember(kept)
        found = hunt.chosen()
        chosen, notes, tried = settled(found, plan, hunt)
        assert hunt.seen is not None
        what = f"{context.workload.metric_name} on {context.workload.select.name} with shared weights"
        table = table_of(hunt.family.space, hunt.seen, what, found, tried, chosen)
        looked = f"{len(hunt.seen.looks)} candidates were looked at, {len(found)} built"
        told = (*hunt.notes, looked, *notes)
        if not hunt.interrupted:
            kept.chosen, kept.table, kept.notes = chosen, table, told
            kept.latency_ms, kept.beside = chosen.there.latency_ms, {RANDOM, UNIFORM}
            keeper.forget()
        draft = draft.with_(tested={**draft.tested, **table}, interrupted=draft.interrupted or hunt.interrupted)
        return self._put(draft.noted(*told), hunt, chosen, plan, CHOSEN)

    def _hunt(self, draft: Draft, context: Context, purse: Purse, known: Hunt | None = None) -> Hunt:
        if known is not None:
            known.family = replace(known.family, context=context)
            known.purse, known.notes = purse, []
            if known.seen is not None:
                known.seen = replace(known.seen, interrupted=False)
            return known
        shared = TrainingPlan(
            epochs=self.shared_epochs,
            learning_rate=self.learning_rate or 1e-3,
            schedule="cosine",
            batch_size=draft.plan.batch_size,
        )
        return Hunt(
            Family.of(draft.model, context, kinds=self.change or KINDS),
            shared,
            purse,
            controller={RANDOM: "chance", UNIFORM: "chance"}.get(self.controller, self.controller),
            trials=self.trials or TRIALS,
            timed=self.timed,
            finalists=self.finalists,
        )

    def _rival(self, draft: Draft, context: Context) -> Draft:
        """Return the draft with what uniform scaling or a random search finds at the latency that a search reached."""
        known = last(key_of(draft.model, context))
        beside = known is not None and self.controller in known.beside
        if known is not None and beside:
            known.beside.discard(self.controller)
        hunt = known.hunt if known is not None and beside else None
        purse = known.purse if known is not None and beside else self._purse()
        share = RIVAL_CHOSEN if self.controller == RANDOM else 1.0
        purse.refuse_spent(share)
        if hunt is None:
            hunt = self._hunt(draft, context, purse)
        hunt = replace(hunt, family=replace(hunt.family, context=context), notes=[], keep=None)
        limit = known.latency_ms if known is not None and beside else context.max_latency
        if limit is None:
            start = hunt.family.space.grid.start
            assert start is not None
            limit = 0.5 * hunt.there(hunt.family.model, start).latency_ms
        chosen = hunt.uniform(limit) if self.controller == UNIFORM else hunt.at_random(limit)
        draft = draft.noted(*hunt.notes, f"within {limit:.3g} ms")
        return self._put(draft, hunt, chosen, self._plan(draft.plan, EPOCHS), share)

    def _put(self, draft: Draft, hunt: Hunt, chosen: Finalist, plan: TrainingPlan, share: float) -> Draft:
        words = words_of(hunt.family.space, chosen.setting)
        where = f", {chosen.there.latency_ms:.3g} ms on {chosen.there.runtime}" if chosen.there.runtime else ""
        plan = plan.adjusted(max_seconds=hunt.purse.seconds_for(share))
        # A copy: what is trained now may be trained once more, by another last step of the recipe.
        model = hunt.context.workload.framework.clone(chosen.model)
        return draft.with_(model=model, plan=plan).noted(f"{words}{where}", hunt.purse.note)

    def _by_hand(self, draft: Draft, context: Context) -> Draft:
        """Return the draft with the best of the models that a body builds, not trained."""
        changed, plain = draft.model is not context.workload.model, type(self)()
        refused = (
            (changed, "a model of the step before, or one that --build makes", "both"),
            (self.controller in (RELAXED, UNIFORM), "a controller for --build", self.controller),
            (bool(self.change), "--change for a space that is read from the model", "--build"),
            (self.timed != plain.timed, "--timed for a space that is read from the model", "--build"),
            (self.shared_epochs != plain.shared_epochs, "--shared-epochs for candidates that share weights", "--build"),
        )
        for wrong, expected, came in refused:
            if wrong:
                raise OptionError(f"nas: {expected}", came, "leave one of them out")
        key, text = key_of(draft.model, context), f"{self.text()} {code_of(self.build)}"
        known, plan = last(key), self._plan(draft.plan, BUILT_EPOCHS)
        by, rivals = going_by(plan, context), set() if self.controller == RANDOM else {RANDOM, UNIFORM}
        purse = self._purse()
        if known is not None and (known.text, known.by) == (text, by) and isinstance(known.chosen, Picked):
            known.again(purse, rivals)
            return self._built(draft.noted(AGAIN), known.chosen, purse, plan, CHOSEN)
        beside = known is not None and self.controller in known.beside
        purse = known.purse if known is not None and beside else purse
        purse.refuse_spent(RIVAL_CHOSEN)
        limit = known.latency_ms if known is not None and beside else context.max_latency
        building = Building(
            self.build,
            plan,
            purse,
            context,
            controller=self.controller,
            trials=self.trials or BUILT_TRIALS,
            finalists=self.finalists,
            limit_ms=limit,
            rival=beside,
        )
        picked: Picked = building.picked()
        if known is not None and beside:
            known.beside.discard(self.controller)
        elif not picked.interrupted:
            remember(Remembered(key, text, purse, None, picked.latency_ms, rivals, by, picked))
        return self._built(draft, picked, purse, plan, RIVAL_CHOSEN if beside else CHOSEN)

    @staticmethod
    def _built(draft: Draft, picked: Picked, purse: Purse, plan: TrainingPlan, share: float) -> Draft:
        return draft.with_(
            model=picked.again(),
            plan=plan.adjusted(max_seconds=purse.seconds_for(share)),
            tested={**draft.tested, **picked.table},
            interrupted=draft.interrupted or picked.interrupted,
        ).noted(*picked.notes, purse.note)

    def _purse(self) -> Purse:
        return Purse(budget_of(self.budget, price_of(self.price)))

    def _plan(self, plan: TrainingPlan, epochs: int) -> TrainingPlan:
        """Return the plan of the one training for the whole recipe: as long as the longest that a step asks for."""
        if plan.epochs:
            return lengthened(plan, self.epochs, self.learning_rate)
        wanted = epochs if self.epochs is None else self.epochs
        return plan.adjusted(epochs=wanted, learning_rate=self.learning_rate or 1e-3, schedule="cosine")


__all__ = ["Nas"]
