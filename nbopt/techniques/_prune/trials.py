"""States on the way of a search: pruned, measured or fine-tuned, and left behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nbopt.draft import Context
from nbopt.errors import OptionError
from nbopt.narrowing import checked, recalibrated
from nbopt.narrowing.subjects import Shares, Units, Weights
from nbopt.progress import Progress
from nbopt.techniques._prune.holding import Holding
from nbopt.techniques._prune.search import AIM, Tried, least_within, most_within, no_limits
from nbopt.training import TrainingPlan


@dataclass(frozen=True)
class Trials:
    """Try sparsities on copies of a model.

    Args:
        subject: What is pruned.
        context: Limits, data, and how a model is measured.
        shares: What each layer gives where all together give a share.
        plan: The fine-tuning that each state has where quality is what is searched for.
    """

    subject: Units | Weights
    context: Context
    shares: Callable[[float], Shares]
    plan: TrainingPlan

    def searched(self) -> tuple[float, str]:
        """Return the sparsity, and what was tried in words.

        Raises:
            OptionError: There is no limit to keep within, or the model is within it as it is.
            ModelError: No sparsity keeps within the limits.
        """
        context, structured = self.context, isinstance(self.subject, Units)
        amounts = [
            words
            for value, words in (
                (context.max_size, f"{context.max_size:,.0f} bytes" if context.max_size else ""),
                (context.max_latency, f"{context.max_latency:g} ms" if context.max_latency else ""),
            )
            if value is not None
        ]
        if amounts and not structured:
            raise OptionError(
                "--structured for --max-size or --max-latency",
                "single weights: zeros make no file smaller and no kernel faster",
                "prune --structured --sparsity auto, or a sparsity as a number",
            )
        if amounts:
            limits = " and ".join(amounts)
            whole = self._measured(0.0, self.subject.model)
            if whole.within:
                raise OptionError(
                    f"a limit that takes pruning to keep within: {limits} does not",
                    whole.figure,
                    "leave prune out, lower the limit, or name a sparsity: --sparsity 0.5",
                )
            share, tried = least_within(self._deployed, limits)
            words = f"the least sparsity within {limits}"
        elif context.max_drop is not None:
            limits = f"a loss of {context.max_drop:.4g}"
            share, tried = most_within(self._judged, limits)
            words = f"the greatest sparsity within {limits} on {context.workload.select.name}"
        else:
            raise no_limits()
        return share, f"{share:.3f} is {words}; tried {'; '.join(map(str, tried))}"

    def _state(self, share: float) -> tuple[Any, Holding]:
        model = self.context.workload.framework.clone(self.subject.model)
        holding = Holding(self.subject, self.subject.lowering, self.shares(share))
        holding.pace(model, 0.0)
        return model, holding

    def _deployed(self, share: float) -> Tried:
        """Prune, export and time."""
        model, holding = self._state(share)
        return self._measured(share, checked(holding.finish(model), self.context))

    def _measured(self, share: float, model: Any) -> Tried:
        """Export and time."""
        context = self.context
        context.progress(Progress(f"trying a sparsity of {share:.2f}"))
        if context.deploy is None:
            raise OptionError("a run that measures, for --sparsity auto", "a technique applied by itself")
        there = context.deploy(model)
        within = context.max_size is None or there.size_bytes <= context.max_size
        if context.max_latency is not None:
            within = within and there.latency_ms <= AIM * context.max_latency
        return Tried(share, f"{there.size_bytes:,} bytes, {there.latency_ms:.3g} ms on {there.runtime}", within)

    def _judged(self, share: float) -> Tried:
        """Prune, fine-tune and score."""
        context, workload = self.context, self.context.workload
        context.progress(Progress(f"trying a sparsity of {share:.2f}"))
        whole = context.score(workload.model)
        model, holding = self._state(share)
        hold: tuple[Callable[[Any], None], ...] = (holding.hold,)
        if isinstance(self.subject, Units):
            model, _ = recalibrated(checked(holding.finish(model), context), context)
            hold = ()
        if self.plan.epochs and workload.train is not None:
            workload.framework.fit(model, self.plan.adjusted(seed=context.seed), context.fitting(hold=hold))
        lost = context.lost(whole, context.score(model))
        assert context.max_drop is not None
        return Tried(share, f"{lost:+.4f} lost", lost <= context.max_drop)
