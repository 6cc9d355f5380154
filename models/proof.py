"""Does the graph help? Paired bootstrap of the fused model against its controls, and the sentence that says so."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from models.arms import CONTROLS

RESAMPLES = 2000
SEEDS_FOR_PROOF = 5
"""Below this a result is called a first look, whatever its interval."""

Counts = NDArray[np.float64]
"""``[seeds, examples, 2]``: each test example's share of a metric's numerator and denominator.

Accuracy is (correct, 1), micro-F1 of spans (2·tp, 2·tp + fp + fn); every metric that is a ratio of sums fits, so one
bootstrap serves all tasks.
"""


Flags = NDArray[np.bool_]


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
    mean = np.nan_to_num(score(treated)).mean() - np.nan_to_num(score(control)).mean()
    return Interval(mean=100 * float(mean), low=100 * float(low), high=100 * float(high))


SMALLEST_SLICE = 50
"""Test examples that a slice needs in every seed to be judged by."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A bound that knowledge must keep to be harmless."""

    name: str
    points: float
    bound: str
    kept: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the comparison says of one task."""

    helps: bool
    slice: str
    """Test texts that it is judged by."""
    over: Mapping[str, Interval]
    """Gain of the fused model over each other arm, on these texts."""
    checks: tuple[Check, ...]
    sentence: str


def judge(
    task: str,
    counts: Mapping[str, Counts],
    *,
    linked: Flags | None = None,
    seen: Flags | None = None,
    corrupted: Mapping[str, float] | None = None,
    treated: str = "fused",
) -> Verdict | None:
    """Compare ``treated`` with every other arm; None where there is nothing to compare.

    The graph helps when, on linked texts whose entities training did not show (all texts where these are few), the
    interval is above zero against each control: a gain that shuffled knowledge also gives is no gain.

    Args:
        linked: texts with an entity ``[examples]``. seen: those of which one was in training ``[seeds, examples]``.
        corrupted: score of ``treated`` over all texts by the share of its links that were led astray.
    """
    others = [arm for arm in counts if arm != treated]
    controls = [arm for arm in others if arm in CONTROLS]
    if treated not in counts or not controls:
        return None
    where, kept = "all texts", np.ones(counts[treated].shape[:2], dtype=bool)
    if linked is not None and seen is not None:
        unseen = linked & ~seen
        if unseen.sum(axis=1).min() >= SMALLEST_SLICE:
            where, kept = "linked texts with entities that training did not show", unseen
    sliced = {arm: arm_counts * kept[..., None] for arm, arm_counts in counts.items()}
    over = {arm: paired_bootstrap(sliced[treated], sliced[arm]) for arm in others}
    best = min(controls, key=lambda arm: over[arm].mean)
    helps = all(over[arm].low > 0 for arm in controls)
    num_seeds = len(counts[treated])
    seeds = f"{num_seeds} seed{'s' if num_seeds > 1 else ''}"
    if num_seeds < SEEDS_FOR_PROOF:
        seeds += f"; a first look, a proof takes {SEEDS_FOR_PROOF}"
    said = "helps" if helps else "hurts" if over[best].high < 0 else "does not help"
    shuffled = {"shuffled", "shuffled-alike"} & set(controls)
    missing = "" if "plain" in controls and shuffled else " Without both plain and shuffled this proves nothing."
    unsure = min(controls, key=lambda arm: over[arm].low)
    but = f", but {over[unsure]} over {unsure}," if over[best].low > 0 and not helps else ""
    gain = f"{over[best]} over {best}, its best control{but or ','}"
    sentence = f"The graph {said} {task}: {gain} on {where} ({seeds}).{missing}"
    checks = tuple(check for check in _checks(counts, sliced, linked, corrupted, treated) if not np.isnan(check.points))
    return Verdict(helps=helps, slice=where, over=over, checks=checks, sentence=sentence)


def _checks(
    counts: Mapping[str, Counts],
    sliced: Mapping[str, Counts],
    linked: Flags | None,
    corrupted: Mapping[str, float] | None,
    treated: str,
) -> Iterator[Check]:
    """Shuffled knowledge falls back to none, texts without links lose nothing, wrong links do little harm."""
    if "null" in counts:
        for arm in ("shuffled-alike", "shuffled"):
            if arm in counts:
                points = 100 * float(score(sliced[arm]).mean() - score(sliced["null"]).mean())
                yield Check(name=f"{arm} against null", points=points, bound="within 1", kept=abs(points) <= 1)
    if "plain" in counts and linked is not None and not linked.all():
        parts = [score(counts[arm][:, ~linked]).mean() for arm in (treated, "plain")]
        points = 100 * float(parts[0] - parts[1])
        yield Check(
            name=f"{treated} against plain, unlinked texts", points=points, bound="within 0.5", kept=abs(points) <= 0.5
        )
    base = next((arm for arm in ("null", "plain") if arm in counts), None)
    for share, reached in (corrupted or {}).items():
        if base is not None:
            points = 100 * float(reached - score(counts[base]).mean())
            name = f"{treated} with {float(share):.0%} of the links wrong against {base}"
            yield Check(name=name, points=points, bound="-1 or more", kept=points >= -1)


def labels_needed(curve: Mapping[int, float], target: float) -> float | None:
    """Labels a class at which a curve (labels to score) first reaches ``target``, between points on a log scale.

    None where it never does; its first point where that is enough already.
    """
    points = sorted(curve.items())
    if points[0][1] >= target:
        return float(points[0][0])
    for (few, low), (many, high) in pairwise(points):
        if high >= target:
            return float(np.exp(np.interp(target, [low, high], np.log([few, many]))))
    return None


def mean_and_deviation(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """Mean and sample standard deviation; the deviation of one value is NaN, not zero."""
    array = np.asarray(values, dtype=float)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else float("nan")
