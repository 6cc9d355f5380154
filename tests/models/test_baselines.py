from typing import get_args

import pytest

from models.arms import BASELINES
from models.baselines import SYSTEMS, first_words, given_words, nearest_text, rows, tf_idf_label, tf_idf_tags
from models.examples import Example
from models.objectives import KINDS, objective_for
from models.recipe import Task

WORDS = {"rise": "up gain profit", "fall": "down loss deficit"}


def labelled(count: int, *, first: int = 0) -> list[Example]:
    return [
        Example(id=f"{label}{i}", text=f"{words} report {i}", label=label)
        for i in range(first, first + count)
        for label, words in WORDS.items()
    ]


def task(kind: str) -> Task:
    return Task(name="t", kind=kind, reader="table", path="t.csv")  # type: ignore[arg-type]


def written(text: str, target: str) -> Example:
    return Example(id=text, text=text, target=target)


def reached(kind: str, train: list[Example], test: list[Example]) -> dict[str, float]:
    """The main metric of each row."""
    objective = objective_for(kind, [*train, *test], train=train)
    return {row["arm"]: row["metrics"][objective.main_metric] for row in rows(task(kind), objective, [(train, test)])}


def test_every_row_has_a_name_that_the_report_knows() -> None:
    assert set(SYSTEMS) == set(KINDS)
    assert {name for systems in SYSTEMS.values() for name in systems} == set(BASELINES)
    assert set(KINDS) == set(get_args(Task.__annotations__["kind"]))


def test_words_tell_labels_that_they_go_with() -> None:
    train, test = labelled(6), labelled(3, first=6)
    _, row = rows(task("sequence_classification"), objective_for("sequence_classification", train), [(train, test)])
    assert (row["arm"], row["metrics"]["accuracy"], row["train_examples"]) == ("tf-idf", 1.0, 12)


def test_the_commonest_label_is_right_as_often_as_it_is_there() -> None:
    train, test = labelled(6), labelled(3, first=6)
    assert reached("sequence_classification", [*train, train[0]], [*test, test[1]])["majority"] == pytest.approx(3 / 7)
    assert reached("sequence_classification", [*train, train[1]], [*test, test[1]])["majority"] == pytest.approx(4 / 7)


@pytest.mark.parametrize("names", [("A", "B"), ("+", "-")])
def test_hypotheses_of_one_sign_are_words(names: tuple[str, str]) -> None:
    pairs = [
        Example(id=f"{name}{i}", text=f"Which of the two is it, {i}?", second=name, label=str(name == names[0]))
        for i in range(6)
        for name in names
    ]
    assert reached("pair_classification", pairs, pairs)["hypothesis only"] == 1.0


def test_of_several_labels_each_has_its_words() -> None:
    train = [
        Example(id=f"{i}{word}", text=f"{word} {i}", labels=labels)
        for i in range(6)
        for word, labels in (("lease", ("land",)), ("loan", ("money",)), ("mortgage", ("land", "money")), ("hello", ()))
    ]
    test = [Example(id="x", text="mortgage", labels=("land", "money")), Example(id="y", text="hello", labels=())]
    assert reached("multi_label_classification", train, test)["tf-idf"] == 1.0
    found = reached("multi_label_classification", [*train, train[2]], test)
    assert found["majority"] == pytest.approx(2 / 3)  # all have both labels, and one has none
    always = [Example(id=str(i), text=f"word {i}", labels=("land",)) for i in range(3)]
    assert reached("multi_label_classification", always, always[:1])["tf-idf"] == 1.0


def test_a_question_is_answered_by_the_nearest_sentence_or_not_at_all() -> None:
    text = "The lease ends in May. The laws of Ohio govern it."
    asked = Example(id="a", text=text, second="Which laws govern it?", answers=((23, "The laws of Ohio govern it."),))
    silent = Example(id="b", text=text, second="Who is the tenant?")
    found = reached("question_answering", [asked, silent], [asked, silent, silent, asked, asked])
    assert found["no answer"] == pytest.approx(2 / 5)
    assert found["nearest sentence"] == pytest.approx(3 / 5)
    assert reached("question_answering", [asked], [Example(id="c", text=" ", second="What?")])["no answer"] == 1.0


def test_the_nearest_choice_is_the_answer() -> None:
    one = Example(
        id="a", text="a tax on imports", choices=("a subsidy", "an import tax", "a quota"), label="an import tax"
    )
    other = Example(id="b", text="a limit by quotas", choices=("a subsidy", "a quota"), label="a subsidy")
    assert reached("multiple_choice", [one, other], [one, one, other]) == {"nearest choice": pytest.approx(2 / 3)}


def test_what_is_put_to_the_text_counts() -> None:
    train = [
        Example(id=f"{i}{word}", text="the same contract", second=f"it says {word}", label=label)
        for i in range(4)
        for word, label in (("yes", "entailed"), ("no", "contradicted"))
    ]
    assert reached("pair_classification", train, train)["tf-idf"] == 1.0


def test_what_is_put_to_the_text_may_give_the_label_away() -> None:
    def pair(text: str, second: str, label: str) -> Example:
        return Example(id=f"{text}{second}", text=text, second=second, label=label)

    train = [pair(f"contract {i}", *said) for i in range(4) for said in (("it ends", "yes"), ("it sings", "no"))]
    test = [pair("it sings", "it ends", "yes"), pair("it ends", "it sings", "no"), pair("a song", "it sings", "yes")]
    assert reached("pair_classification", train, test)["hypothesis only"] == pytest.approx(2 / 3)


def test_the_same_words_may_say_other_things_of_each_hypothesis() -> None:
    said = {"it lasts": ("yes", "no"), "it ends": ("no", "yes")}
    train = [
        Example(id=f"{i}{second}{text}", text=text, second=second, label=label)
        for i in range(20)
        for second, labels in said.items()
        for text, label in zip(("for ever", "on Monday"), labels, strict=True)
    ]
    scores = reached("pair_classification", train, train[:4])
    assert scores["tf-idf per hypothesis"] == 1.0 > scores["hypothesis only"]
    assert "tf-idf per hypothesis" not in reached("pair_classification", train[:36], train[:4])


def test_a_word_is_tagged_by_its_letters_and_by_those_beside_it() -> None:
    tags = ("O", "B-DRUG", "O")
    train = [Example(id=str(i), text="", words=("took", f"{i}mycin", "daily"), tags=tags) for i in range(12)]
    test = [Example(id="x", text="", words=("took", "neomycin", "daily"), tags=tags)]
    objective = objective_for("token_classification", train)
    (row,) = rows(task("token_classification"), objective, [(train, test)])
    assert (row["arm"], row["metrics"]["f1"]) == ("tf-idf", 1.0)
    assert tf_idf_tags(train, [Example(id="y", text="", words=("took", "nothing"), tags=("O", "O"))]) == [["O", "O"]]


def test_where_training_shows_one_label_it_is_the_answer() -> None:
    plain = [Example(id="x", text="", words=("nothing", "here"), tags=("O", "O"))]
    assert tf_idf_tags(plain, plain) == [["O", "O"]]
    assert tf_idf_label(labelled(3)[::2], labelled(1)) == ["rise", "rise"]


def test_values_are_told_better_than_by_their_mean() -> None:
    train = [Example(id=str(i), text="good " * (i % 3) + "day", value=float(i % 3)) for i in range(30)]
    (row,) = rows(task("regression"), objective_for("regression", train), [(train, train[:9])])
    assert row["metrics"]["r2"] > 0.5


def test_first_words_are_as_many_as_targets_have() -> None:
    train = [written("x", "one two"), written("y", "one two three four")]
    assert first_words(train, [written("a b c d e", "")]) == ["a b c"]


def test_the_nearest_text_lends_its_target() -> None:
    train = [written("a lease of land", "Lease."), written("a loan of money", "Loan.")]
    assert nearest_text(train, [written("money as a loan", ""), written("land to lease", "")]) == ["Loan.", "Lease."]
    found = reached("seq2seq_generation", train, train)
    assert found["nearest text"] == pytest.approx(1.0)
    assert found["agreed text"] == pytest.approx(1.0)
    assert found["first words"] < 0.9


def test_what_is_put_to_a_text_is_written_behind_the_commonest_beginning() -> None:
    train = [
        Example(id="a", text="A fox ran.", second="a fox", target="Who ran?"),
        Example(id="b", text="It sang.", second="a crow", target="Who sang?"),
        Example(id="c", text="It rained.", second="rain", target="What fell?"),
    ]
    assert given_words(train, [Example(id="d", text="It slept.", second="a cat")]) == ["Who a cat"]
    assert set(reached("seq2seq_generation", train, train)) == set(SYSTEMS["seq2seq_generation"])
    alone = [written("a lease of land", "Lease."), written("a loan of money", "Loan.")]
    assert "given words" not in reached("seq2seq_generation", alone, alone)


def test_folds_are_scored_together() -> None:
    train, test = labelled(6), labelled(2, first=6)
    objective = objective_for("sequence_classification", train)
    _, row = rows(task("sequence_classification"), objective, [(train, test), (test, train)])
    assert row["metrics"]["accuracy"] == 1.0
    swapped = [Example(id=e.id, text=e.text, label={"rise": "fall", "fall": "rise"}[str(e.label)]) for e in test]
    _, half = rows(task("sequence_classification"), objective, [(train, test), (train, swapped)])
    assert half["metrics"]["accuracy"] == 0.5
