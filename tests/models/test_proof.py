import numpy as np
import pytest

from models.proof import judge, mean_and_deviation, paired_bootstrap, score


def answers(rate: float, *, seeds: int = 5, examples: int = 400, seed: int = 0) -> np.ndarray:
    """Accuracy counts of a system that is right at ``rate``."""
    correct = np.random.default_rng(seed).random((seeds, examples)) < rate
    return np.stack([correct, np.ones_like(correct)], axis=-1).astype(float)


def test_a_clear_gain_over_both_controls_is_said_to_help() -> None:
    verdict = judge("x", {"fused": answers(0.8), "plain": answers(0.6, seed=1), "shuffled": answers(0.62, seed=2)})
    assert verdict is not None
    assert verdict.helps
    assert "helps x" in verdict.sentence
    assert "over shuffled" in verdict.sentence


def test_a_gain_that_shuffled_knowledge_also_gives_is_no_gain() -> None:
    verdict = judge("x", {"fused": answers(0.8), "plain": answers(0.6, seed=1), "shuffled": answers(0.8, seed=2)})
    assert verdict is not None
    assert not verdict.helps
    assert "does not help x" in verdict.sentence


def test_harm_is_called_harm() -> None:
    verdict = judge("x", {"fused": answers(0.5), "plain": answers(0.8, seed=1), "shuffled": answers(0.5, seed=2)})
    assert verdict is not None
    assert "hurts x" in verdict.sentence


def test_a_missing_control_is_said() -> None:
    verdict = judge("x", {"fused": answers(0.8), "plain": answers(0.5, seed=1)})
    assert verdict is not None
    assert "proves nothing" in verdict.sentence


def test_few_seeds_are_called_a_first_look() -> None:
    verdict = judge("x", {"fused": answers(0.8, seeds=2), "plain": answers(0.5, seeds=2)})
    assert verdict is not None
    assert "first look" in verdict.sentence


def test_the_interval_covers_zero_for_equal_systems_and_holds_the_mean() -> None:
    interval = paired_bootstrap(answers(0.7), answers(0.7, seed=1))
    assert interval.low < 0 < interval.high
    assert interval.low < interval.mean < interval.high


def test_an_f1_is_a_ratio_of_sums() -> None:
    spans = np.array([[[2.0, 3.0], [0.0, 1.0]]])  # one right and one missed; then one invented
    assert score(spans) == pytest.approx([0.5])


def test_different_examples_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="unpaired"):
        paired_bootstrap(answers(0.7), answers(0.7, examples=10))


def test_one_value_has_no_deviation() -> None:
    assert np.isnan(mean_and_deviation([0.5])[1])
