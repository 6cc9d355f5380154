"""Trivial systems that a model has to beat to be worth its weight: one row of the report for each that fits a task."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.pipeline import Pipeline, make_pipeline

from models.examples import Example, whole
from models.objectives import Objective, marked
from models.objectives.extraction import sentence_places
from models.recipe import Task
from models.retrieval import Memory, character_grams, word_grams

Answers = Callable[[Sequence[Example], Sequence[Example]], list[Any]]
"""``answers(train, test)``: one for each of ``test``; none at all where the examples have not what it needs."""
OFTEN = 20
"""Training texts of a hypothesis that can teach a model of it."""


def rows(
    task: Task, objective: Objective, divisions: Sequence[tuple[Sequence[Example], Sequence[Example]]]
) -> list[dict[str, Any]]:
    """What each trivial system reaches, as the report keeps it.

    Args:
        divisions: training and tested examples; several with folds, whose answers are scored together.
    """
    tested = [example for _, test in divisions for example in test]
    given = {
        name: [one for parts in divisions for one in answers(*parts)] for name, answers in SYSTEMS[task.kind].items()
    }
    return [
        {
            "task": task.name,
            "arm": name,
            "seed": 0,
            "metrics": dict(objective.score(answers, tested).metrics),
            "train_examples": len(divisions[0][0]),
        }
        for name, answers in given.items()
        if answers
    ]


def _text(example: Example) -> str:
    return marked(example)[0] if example.pair else whole(example)


def _words(known: Sequence[str]) -> TfidfVectorizer:
    """Words and word pairs; single signs where no text has more than these: choices that are called A and B."""
    words = word_grams()
    return words if any(re.search(r"\w\w", text) for text in known) else words.set_params(token_pattern=r"\S")  # noqa: S106


def _regression() -> LogisticRegression:
    return LogisticRegression(C=10.0, max_iter=1000)


def majority_label(train: Sequence[Example], test: Sequence[Example]) -> list[Any]:
    """The commonest label of the training examples: what a model says that has learnt nothing of the texts."""
    return [_commonest(str(example.label) for example in train)] * len(test)


def majority_labels(train: Sequence[Example], test: Sequence[Example]) -> list[Any]:
    """The set of labels that most training examples have."""
    return [list(_commonest(tuple(sorted(example.labels)) for example in train))] * len(test)


def _commonest(values: Iterable[Any]) -> Any:
    ((value, _),) = Counter(values).most_common(1)
    return value


def tf_idf_label(train: Sequence[Example], test: Sequence[Example]) -> list[Any]:
    """Words and word pairs with logistic regression: on topical texts a serious rival."""
    known = list(map(_text, train))
    model = make_pipeline(_words(known), _regression())
    return _told(model, known, [str(example.label) for example in train], list(map(_text, test)))


def hypothesis_only(train: Sequence[Example], test: Sequence[Example]) -> list[Any]:
    """The same from what is put to the text, whatever the text says (arXiv 1805.01042)."""
    known, asked = ([replace(example, text=example.second, second="") for example in part] for part in (train, test))
    return tf_idf_label(known, asked)


def tf_idf_per_hypothesis(train: Sequence[Example], test: Sequence[Example]) -> list[Any]:
    """As ``tf_idf_label`` of the text, one model a hypothesis; none where training shows one too seldom."""
    given: list[Any] = [None] * len(test)
    for hypothesis in {example.second for example in test}:
        known = [replace(example, second="") for example in train if example.second == hypothesis]
        if len(known) < OFTEN:
            return []
        places = [place for place, example in enumerate(test) if example.second == hypothesis]
        labels = tf_idf_label(known, [replace(test[place], second="") for place in places])
        for place, label in zip(places, labels, strict=True):
            given[place] = label
    return given


def tf_idf_labels(train: Sequence[Example], test: Sequence[Example]) -> list[Any]:
    """As ``tf_idf_label``, for each label by itself."""
    texts = list(map(_text, train))
    words = _words(texts)
    known, asked = words.fit_transform(texts), words.transform(list(map(_text, test)))
    given: list[list[str]] = [[] for _ in test]
    for label in sorted({label for example in train for label in example.labels}):
        has = [label in example.labels for example in train]
        model = None if all(has) else _regression().fit(known, has)
        for labels, says in zip(given, [True] * len(test) if model is None else model.predict(asked), strict=True):
            labels.extend([label] if says else [])
    return given


def tf_idf_tags(train: Sequence[Example], test: Sequence[Example]) -> list[Any]:
    """A word, its beginnings, middles and ends and the words beside it, with logistic regression (by SGD)."""
    model = make_pipeline(
        TfidfVectorizer(analyzer=_about, sublinear_tf=True), SGDClassifier(loss="log_loss", alpha=1e-6, random_state=0)
    )
    known, asked = ([place for example in part for place in _places(example)] for part in (train, test))
    tags = iter(_told(model, known, [tag for example in train for tag in example.tags], asked))
    return [[next(tags) for _ in example.words] for example in test]


def _told(model: Pipeline, known: Sequence[Any], labels: Sequence[str], asked: Sequence[Any]) -> list[str]:
    """What ``model`` says of what is asked; the only label there is, which no regression learns from."""
    if len(set(labels)) == 1:
        return [labels[0]] * len(asked)
    return list(map(str, model.fit(known, labels).predict(asked)))


def _places(example: Example) -> Iterator[tuple[str, str, str]]:
    """Each word between its neighbours."""
    words = ("", *example.words, "")
    return zip(words, words[1:], words[2:], strict=False)


def _about(place: tuple[str, str, str]) -> list[str]:
    before, word, after = place
    padded = f"<{word}>"
    pieces = [padded[start : start + length] for length in (3, 4) for start in range(len(padded) - length + 1)]
    return [f"before {before.lower()}", f"after {after.lower()}", f"word {word.lower()}", *pieces]


def tf_idf_value(train: Sequence[Example], test: Sequence[Example]) -> list[Any]:
    """Words and word pairs with ridge regression."""
    known = list(map(_text, train))
    model = make_pipeline(_words(known), Ridge(alpha=1.0))
    model.fit(known, [example.value for example in train])
    return list(map(float, model.predict(list(map(_text, test)))))


def no_answer(train: Sequence[Example], test: Sequence[Example]) -> list[Any]:
    """That the text does not say: right as often as that is so."""
    return [""] * len(test)


def nearest_sentence(train: Sequence[Example], test: Sequence[Example]) -> list[Any]:
    """The sentence of the text that is most like the question."""
    sentences = [[example.text[start:end] for start, end in sentence_places(example.text)] for example in test]
    return _most_like(train, [example.second for example in test], sentences)


def nearest_choice(train: Sequence[Example], test: Sequence[Example]) -> list[Any]:
    """The choice that is most like the text with its question."""
    return _most_like(train, list(map(whole, test)), [example.choices for example in test])


def _most_like(train: Sequence[Example], asked: Sequence[str], offered: Sequence[Sequence[str]]) -> list[str]:
    """Of each list of texts the one most like what is asked, by character n-grams, rare ones of ``train`` first."""
    grams = character_grams().fit(list(map(whole, train)))
    likeness = [
        (grams.transform(texts) @ grams.transform([text]).T).toarray().ravel()
        for text, texts in zip(asked, offered, strict=True)
    ]
    return [texts[int(row.argmax())] for row, texts in zip(likeness, offered, strict=True)]


def first_words(train: Sequence[Example], test: Sequence[Example]) -> list[Any]:
    """As many of a text's first words as a training target has on average."""
    length = round(sum(len(example.target.split()) for example in train) / len(train))
    return [" ".join(example.text.split()[:length]) for example in test]


def nearest_text(train: Sequence[Example], test: Sequence[Example]) -> list[Any]:
    """The target of the training text that is most like the text."""
    return Memory.of(train).nearest(list(map(whole, test)))


def agreed_text(train: Sequence[Example], test: Sequence[Example]) -> list[Any]:
    """Of the targets of the training texts that are most like the text, the one that is most like all of them."""
    return Memory.of(train).agreed(list(map(whole, test)))


def given_words(train: Sequence[Example], test: Sequence[Example]) -> list[Any]:
    """What is put to the text, behind the commonest first word of the targets: a question of its answer, badly put."""
    if not any(example.second for example in test):
        return []
    first = _commonest(example.target.partition(" ")[0] for example in train)
    return [f"{first} {example.second}" for example in test]


_OF_LABELS: Mapping[str, Answers] = {"majority": majority_label, "tf-idf": tf_idf_label}
_OF_TEXTS: Mapping[str, Answers] = {
    "first words": first_words,
    "nearest text": nearest_text,
    "agreed text": agreed_text,
    "given words": given_words,
}
SYSTEMS: Mapping[str, Mapping[str, Answers]] = {
    "sequence_classification": _OF_LABELS,
    "multi_label_classification": {"majority": majority_labels, "tf-idf": tf_idf_labels},
    "pair_classification": {
        **_OF_LABELS,
        "hypothesis only": hypothesis_only,
        "tf-idf per hypothesis": tf_idf_per_hypothesis,
    },
    "relation_classification": _OF_LABELS,
    "token_classification": {"tf-idf": tf_idf_tags},
    "regression": {"tf-idf": tf_idf_value},
    "question_answering": {"no answer": no_answer, "nearest sentence": nearest_sentence},
    "multiple_choice": {"nearest choice": nearest_choice},
    "extractive_summarization": _OF_TEXTS,
    "seq2seq_generation": _OF_TEXTS,
    "causal_generation": _OF_TEXTS,
}
"""By the kind of the task and the name of the row (``models.arms.BASELINES``)."""
