import numpy as np
import pytest

from models.proof import judge, labels_needed, mean_and_deviation, paired_bootstrap, score


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


def test_a_gain_that_is_unsure_over_another_control_is_said_to_be() -> None:
    fused = answers(0.8, seeds=3)
    shuffled = fused.copy()
    shuffled[:, :40, 0] = 0.0
    plain = np.concatenate([answers(rate, seeds=1) for rate in (0.3, 0.6, 0.95)])
    verdict = judge("x", {"fused": fused, "plain": plain, "shuffled": shuffled})
    assert verdict is not None
    assert not verdict.helps
    assert verdict.over["shuffled"].low > 0 > verdict.over["plain"].low
    assert f"over shuffled, its best control, but {verdict.over['plain']} over plain, on all texts" in verdict.sentence


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


def flags(share: float, *shape: int) -> np.ndarray:
    return np.random.default_rng(9).random(shape) < share


def test_a_gain_is_judged_by_linked_texts_whose_entities_training_did_not_show() -> None:
    linked, seen = flags(0.5, 400), flags(0.3, 5, 400)
    fused, plain = answers(0.6), answers(0.6)
    unseen = linked & ~seen
    fused[unseen, 0] = 1.0
    fused[~unseen, 0] = 0.0
    verdict = judge("x", {"fused": fused, "plain": plain, "shuffled": plain}, linked=linked, seen=seen)
    assert verdict is not None
    assert verdict.helps
    assert "training did not show" in verdict.slice
    few = judge("x", {"fused": fused, "plain": plain, "shuffled": plain}, linked=linked, seen=np.ones_like(seen))
    assert few is not None
    assert (few.slice, few.helps) == ("all texts", False)


def test_what_knows_of_the_graph_is_no_control() -> None:
    told = {"fused": answers(0.8), "plain": answers(0.6, seed=1), "shuffled": answers(0.6, seed=2)}
    verdict = judge("x", {**told, "unbanned": answers(0.99, seed=3), "types": answers(0.9, seed=4)})
    assert verdict is not None
    assert verdict.helps
    assert verdict.over["unbanned"].mean < 0


def test_knowledge_that_harms_is_told_of_whatever_the_gain() -> None:
    linked = flags(0.5, 400)
    fused, plain = answers(0.7), answers(0.7)
    fused[:, ~linked, 0] = 0.0
    counts = {"fused": fused, "plain": plain, "null": plain, "shuffled": answers(0.5, seed=3)}
    verdict = judge("x", counts, linked=linked, seen=flags(0.0, 5, 400), corrupted={"0.1": 0.7, "0.5": 0.2})
    assert verdict is not None
    kept = {check.name: check.kept for check in verdict.checks}
    assert kept == {
        "shuffled against null": False,
        "fused against plain, unlinked texts": False,
        "fused with 10% of the links wrong against null": True,
        "fused with 50% of the links wrong against null": False,
    }


def test_labels_are_saved_where_the_curve_is_higher() -> None:
    fused = {5: 0.5, 20: 0.7, 100: 0.8}
    assert labels_needed(fused, 0.4) == 5
    assert labels_needed(fused, 0.7) == pytest.approx(20)
    assert labels_needed(fused, 0.6) == pytest.approx(10)  # half-way from 5 to 20 on a log scale
    assert labels_needed(fused, 0.9) is None


def test_an_f1_is_a_ratio_of_sums() -> None:
    spans = np.array([[[2.0, 3.0], [0.0, 1.0]]])  # one right and one missed; then one invented
    assert score(spans) == pytest.approx([0.5])


def test_different_examples_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="unpaired"):
        paired_bootstrap(answers(0.7), answers(0.7, examples=10))


def test_one_value_has_no_deviation() -> None:
    assert np.isnan(mean_and_deviation([0.5])[1])


def test_where_there_is_nothing_to_find_and_nothing_found_nobody_gains() -> None:
    nothing = np.zeros((2, 30, 2))
    verdict = judge("x", {"fused": nothing, "plain": nothing, "shuffled": nothing})
    assert verdict is not None
    assert not verdict.helps
    assert (verdict.over["plain"].mean, verdict.over["plain"].low) == (0.0, 0.0)
    assert "nan" not in verdict.sentence
