"""Does the graph help? Paired bootstrap of the fused model against its controls, and the sentence that says so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
SEEDS_FOR_PROOF = 5
"""Below this a result is called a first look, whatever its interval."""

Counts = NDArray[np.float64]
"""``[seeds, examples, 2]``: each test example's share of a metric's numerator and denominator.

Accuracy is (correct, 1), micro-F1 of spans (2·tp, 2·tp + fp + fn); every metric that is a ratio of sums fits, so one
bootstrap serves all tasks.
"""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A difference of scores in points (hundredths) with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.1f} points (95 % interval {self.low:+.1f} to {self.high:+.1f})"


def score(counts: Counts) -> NDArray[np.float64]:
    """Score of each seed ``[seeds]``, in [0, 1]; NaN where nothing counts (an empty slice)."""
    sums = counts.sum(axis=1)
    empty = np.full(len(sums), np.nan)
    rates: NDArray[np.float64] = np.divide(sums[:, 0], sums[:, 1], out=empty, where=sums[:, 1] > 0)
    return rates


def paired_bootstrap(treated: Counts, control: Counts, *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Difference of mean scores, resampling test examples and seeds together for both sides.

    Args:
        treated: ``[seeds, examples, 2]``. control: the same seeds and examples.
    """
    if treated.shape != control.shape:
        raise ValueError(f"unpaired: {treated.shape} against {control.shape}")
    rng = np.random.default_rng(seed)
    num_seeds, num_examples, _ = treated.shape
    differences = np.empty(resamples)
    for index in range(resamples):
        seeds = rng.integers(num_seeds, size=num_seeds)
        weights = np.bincount(rng.integers(num_examples, size=num_examples), minlength=num_examples)
        sums = [np.einsum("sec,e->sc", side[seeds], weights) for side in (treated, control)]
        rates = [np.divide(s[:, 0], s[:, 1], out=np.zeros(num_seeds), where=s[:, 1] > 0).mean() for s in sums]
        differences[index] = rates[0] - rates[1]
    low, high = np.quantile(differences, [0.025, 0.975])
    mean = score(treated).mean() - score(control).mean()
    return Interval(mean=100 * float(mean), low=100 * float(low), high=100 * float(high))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the comparison says of one task."""

    helps: bool
    over: Mapping[str, Interval]
    """Gain of the fused model over each control arm."""
    sentence: str


def judge(task: str, counts: Mapping[str, Counts], *, treated: str = "fused") -> Verdict | None:
    """Compare ``treated`` with every other arm; None where there is nothing to compare.

    The graph helps when the interval is above zero against each control: a gain that shuffled knowledge also gives is
    no gain.
    """
    controls = [arm for arm in counts if arm != treated]
    if treated not in counts or not controls:
        return None
    over = {arm: paired_bootstrap(counts[treated], counts[arm]) for arm in controls}
    best = min(over, key=lambda arm: over[arm].mean)
    helps = all(interval.low > 0 for interval in over.values())
    num_seeds = len(counts[treated])
    seeds = f"{num_seeds} seed{'s' if num_seeds > 1 else ''}"
    if num_seeds < SEEDS_FOR_PROOF:
        seeds += f"; a first look, a proof takes {SEEDS_FOR_PROOF}"
    said = "helps" if helps else "hurts" if over[best].high < 0 else "does not help"
    missing = "" if {"plain", "shuffled"} <= set(controls) else " Without both plain and shuffled this proves nothing."
    sentence = f"The graph {said} {task}: {over[best]} over {best}, its best control ({seeds}).{missing}"
    return Verdict(helps=helps, over=over, sentence=sentence)


def mean_and_deviation(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """Mean and sample standard deviation; the deviation of one value is NaN, not zero."""
    array = np.asarray(values, dtype=float)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else float("nan")
