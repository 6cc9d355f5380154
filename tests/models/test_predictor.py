"""An answer carries its links and its reasons, and both can be checked by hand."""

import json
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kg.errors import ConfigError, InputError, KGError, SnapshotMismatch
from kg.snapshot import Snapshot
from models.explain import as_html, as_lines
from models.injection import knowledge_of
from models.mentions import keep_mentions
from models.predictor import Answer, Predictor, choose, load_predictors
from models.run import Run
from tests.builders import tiny_snapshot
from tests.models.test_run import recipe as some_recipe
from tests.models.tiny import attentions, open_gates
from tests.models.tiny_run import COMPANIES, MENTIONED, PEOPLE

pytestmark = pytest.mark.neo4j
TEXT = "Liv Stensrud left Acme Bank after 3 days, and Fjord Shield rose."
WORD = re.compile(r"\w+|[^\w\s]")
NO_ENTITY = "It rained all week."
TEXTS = ["Delta Cover fell", TEXT, NO_ENTITY, "", "Per Aasen likes Delta Cover."]


@pytest.fixture(scope="module")
def predictors(finetuned: Path) -> Mapping[str, Predictor]:
    return load_predictors(finetuned)


LOUD = {"kind": 100, "names": 30}
"""How much stronger; ten times as much, and the words are not heard any more."""


@pytest.fixture(scope="module")
def loud(finetuned: Path) -> Mapping[str, Predictor]:
    """The same models with open gates and what they let in made strong, so that knowledge changes answers."""
    loaded = load_predictors(finetuned)
    for predictor in loaded.values():
        open_gates(predictor.model)
        for attention in attentions(predictor.model):
            attention.up.weight.data *= LOUD[predictor.task.name]
    return loaded


@pytest.fixture(params=["kind", "names"])
def predictor(request: pytest.FixtureRequest, predictors: Mapping[str, Predictor]) -> Predictor:
    return predictors[request.param]


def by_hand(predictor: Predictor, text: str, kept: list[int] | None = None) -> torch.Tensor:
    """Probabilities with only the mentions ``kept``; with all of them for None."""
    feature = predictor.encoder.encode_linked(text, predictor.encoder.linker.link(text))
    if kept is not None:
        feature = keep_mentions(feature, kept)
    with torch.no_grad():
        probabilities: torch.Tensor = predictor.model(**predictor.collate([feature])).logits.softmax(-1)[0]
    return probabilities


def test_the_models_are_there_by_task_and_the_first_is_the_default(predictors: Mapping[str, Predictor]) -> None:
    assert list(predictors) == ["kind", "names"]
    assert choose(predictors, None) is predictors["kind"]
    assert choose(predictors, "names") is predictors["names"]
    with pytest.raises(ConfigError, match="no task 'mood'; it has kind, names"):
        choose(predictors, "mood")
    assert predictors["kind"].labels == ("bank", "insurer")


def test_a_text_gets_a_label_with_its_probability(predictors: Mapping[str, Predictor]) -> None:
    answer = predictors["kind"].predict(TEXT)
    assert set(answer.probabilities) == {"bank", "insurer"}
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=2e-4)
    assert answer.label == max(answer.probabilities, key=lambda label: answer.probabilities[label])
    assert answer.spans == ()
    expected = by_hand(predictors["kind"], TEXT)
    assert list(answer.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-4)


def test_the_model_learned_what_it_was_taught(predictors: Mapping[str, Predictor]) -> None:
    assert predictors["kind"].predict("Acme Bank rose in week 1.").label == "bank"
    assert predictors["kind"].predict("Delta Cover rose in week 1.").label == "insurer"


def test_links_say_where_their_mentions_are(predictor: Predictor) -> None:
    answer = predictor.predict(TEXT)
    assert [link.text for link in answer.links] == ["Liv Stensrud", "Acme Bank", "Fjord Shield"]
    assert all(TEXT[link.start : link.end] == link.text for link in answer.links)
    assert [link.id for link in answer.links] == ["ex:p0", "ex:c0", "ex:c5"]


def test_influence_is_the_difference_that_one_mention_makes(loud: Mapping[str, Predictor]) -> None:
    predictor, seen = loud["kind"], []
    for text in TEXTS:
        answer = predictor.predict(text)
        best = predictor.labels.index(str(answer.label))
        whole = float(by_hand(predictor, text)[best])
        mentions = range(len(answer.links))
        assert sorted(reason.link for reason in answer.reasons) == list(mentions)
        for reason in answer.reasons:
            without = float(by_hand(predictor, text, [other for other in mentions if other != reason.link])[best])
            assert reason.influence == pytest.approx(whole - without, abs=1e-4)
        nothing = by_hand(predictor, text, [])
        assert answer.influence == pytest.approx(whole - float(nothing[best]), abs=1e-4)
        assert answer.without_knowledge == predictor.labels[int(nothing.argmax())]
        sizes = [abs(reason.influence) for reason in answer.reasons]
        assert sizes == sorted(sizes, reverse=True)
        seen += sizes
    assert max(seen) > 0.01


def test_influence_on_spans_is_on_the_words_in_them(loud: Mapping[str, Predictor]) -> None:
    predictor = loud["names"]
    answer = predictor.predict(TEXT)
    assert answer.label is None
    assert answer.probabilities == {}
    starts = [start for start, _ in predictor.encoder.encode_linked(TEXT, answer.links)["offsets"]]
    words = [span.start + match.start() for span in answer.spans for match in WORD.finditer(span.text)]
    words = words or [match.start() for match in WORD.finditer(TEXT)]  # nothing found: on all words
    tokens = [starts.index(word, 1) for word in words]  # token 0 opens the text and has no place in it
    whole = by_hand(predictor, TEXT)
    tags = whole[tokens].argmax(-1)
    for reason in answer.reasons:
        without = by_hand(predictor, TEXT, [mention for mention in range(3) if mention != reason.link])
        expected = (whole[tokens, tags] - without[tokens, tags]).mean()
        assert reason.influence == pytest.approx(float(expected), abs=1e-4)
    assert any(abs(reason.influence) > 1e-3 for reason in answer.reasons)


def test_attention_and_gate_are_those_of_the_token_that_let_in_most(predictors: Mapping[str, Predictor]) -> None:
    predictor = predictors["kind"]
    answer = predictor.predict(TEXT)
    feature = predictor.encoder.encode_linked(TEXT, answer.links)
    with torch.no_grad():
        reads = knowledge_of(predictor.model(**predictor.collate([feature])))
    assert set(reads) == {1, 2}
    for reason in answer.reasons:
        found = [
            (abs(gate * attention), attention, abs(gate))
            for read in reads.values()
            for gate, attention in zip(read.gate[0].tolist(), read.reading[0, :, reason.link].tolist(), strict=True)
        ]
        assert (reason.attention, reason.gate) == pytest.approx(max(found)[1:], abs=1e-4)
        assert 0 < reason.attention < 1
        assert 0 < reason.gate < 1


@pytest.mark.parametrize("task", ["kind", "names"])
def test_the_counterfactual_of_a_mention_is_the_answer_without_it(task: str, loud: Mapping[str, Predictor]) -> None:
    predictor, other = loud[task], 0
    for text in TEXTS:
        answer = predictor.predict(text)
        links = predictor.encoder.linker.link(text)
        for reason in answer.reasons:
            kept = [link for link in links if link != answer.links[reason.link]]
            feature = predictor.encoder.encode_linked(text, kept)
            words = [match.start() for match in WORD.finditer(text)]
            with torch.no_grad():
                best = predictor.model(**predictor.collate([feature])).logits[0].argmax(-1)
            if task == "kind":
                assert reason.without == predictor.labels[int(best)]
                other += reason.without != answer.label
            else:
                starts = [start for start, _ in feature["offsets"]]
                tags = [predictor.labels[int(best[starts.index(word, 1)])] for word in words]
                begun = [tag.split("-")[1] for tag in tags if tag.startswith("B-")]
                assert [found.rsplit(":", 1)[1] for found in reason.without.split("; ") if found] == begun or any(
                    tag.startswith("I-") for tag in tags
                )
                other += 1
    assert other > 0


@pytest.mark.parametrize("knowledge", ["predictors", "loud"])
@pytest.mark.parametrize("task", ["kind", "names"])
def test_attributions_of_words_sum_to_what_the_words_do(
    task: str, knowledge: str, request: pytest.FixtureRequest
) -> None:
    predictor: Predictor = request.getfixturevalue(knowledge)[task]
    for text in (TEXT, "Delta Cover fell", NO_ENTITY, "Per Aasen's Antidisestablishmentarianism 🙂 café."):
        answer = predictor.predict(text, words=True)
        words = answer.words
        assert [text[word.start : word.end] for word in words.words] == [word.text for word in words.words]
        assert [word.text for word in words.words] == WORD.findall(text)
        feature = predictor.encoder.encode_linked(text, answer.links)
        masked = {**feature, "input_ids": list(feature["input_ids"])}
        masked["input_ids"][1:-1] = [predictor.encoder.tokenizer.mask_token_id] * (len(masked["input_ids"]) - 2)
        starts = [start for start, _ in feature["offsets"]]
        with torch.no_grad():
            logits = predictor.model(**predictor.collate([feature, masked])).logits
        given = logits.softmax(-1)
        if task == "kind":
            whole, baseline = given[:, given[0].argmax()].tolist()
        else:
            found = [span.start + match.start() for span in answer.spans for match in WORD.finditer(span.text)]
            tokens = [starts.index(word, 1) for word in found or [word.start for word in words.words]]
            whole, baseline = given[:, tokens, given[0, tokens].argmax(-1)].mean(-1).tolist()
        assert words.baseline == pytest.approx(baseline, abs=1e-4)
        total = sum(word.attribution for word in words.words)
        assert total - (whole - baseline) == pytest.approx(words.error, abs=1e-3)
        assert abs(words.error) < 0.01
    assert max(abs(word.attribution) for word in words.words) > 0.001


def test_words_are_attributed_while_other_threads_ask_and_in_a_text_of_nothing(
    predictors: Mapping[str, Predictor],
) -> None:
    predictor = predictors["kind"]
    expected = predictor.predict(TEXT)
    with ThreadPoolExecutor(2) as pool:
        attributed = pool.submit(predictor.predict, TEXT, words=True)
        assert all(predictor.predict(TEXT) == expected for _ in range(10))
    assert replace(attributed.result(), words=None) == expected
    assert predictor.predict(" ", words=True).words.words == ()
    assert all(parameter.grad is None for parameter in predictor.model.parameters())


def test_taking_the_decisive_entity_away_changes_the_answer_more_than_a_random_one(
    loud: Mapping[str, Predictor], finetuned: Path
) -> None:
    """Over sentences on two entities. The links of one are withheld, so that the text is linked and read anew."""
    predictor = loud["kind"]
    decisive, chance, texts = [], [], 0
    for company, _ in COMPANIES[:MENTIONED]:
        for person in PEOPLE:
            text = f"{person} of {company} met {COMPANIES[texts % MENTIONED][0]}'s board."
            links = predictor.encoder.linker.link(text)
            answer = predictor.predict(text)
            best = predictor.labels.index(str(answer.label))

            def change(link: int, text: str = text, links: Any = links, best: int = best) -> float:
                features = [
                    predictor.encoder.encode_linked(text, kept) for kept in (links, links[:link] + links[link + 1 :])
                ]
                with torch.no_grad():
                    given = predictor.model(**predictor.collate(features)).logits.softmax(-1)[:, best]
                return abs(float(given[0] - given[1]))

            changes = [change(reason.link) for reason in answer.reasons]
            assert changes[0] > max(changes) - 2e-4  # influences have four places
            decisive.append(changes[0])
            chance.append(sum(changes) / len(changes))
            texts += 1
    assert texts == 28
    mean_decisive, mean_chance = sum(decisive) / texts, sum(chance) / texts
    assert mean_decisive > 0.005
    assert mean_decisive > 1.3 * mean_chance, (mean_decisive, mean_chance)


def test_facts_are_triples_of_the_entity(predictors: Mapping[str, Predictor]) -> None:
    answer = predictors["kind"].predict(TEXT)
    facts = {answer.links[reason.link].name: reason.facts for reason in answer.reasons}
    assert facts["Liv Stensrud"]
    assert all("Liv Stensrud" in fact for fact in facts["Liv Stensrud"])
    assert "Liv Stensrud –DIRECTS→ Acme Bank" in facts["Liv Stensrud"]
    assert all(len(said) <= 5 for said in facts.values())
    assert facts["Acme Bank"][0].startswith("Acme Bank –")  # what it says itself comes first


def test_spans_lie_in_the_text(predictors: Mapping[str, Predictor]) -> None:
    for text in ["Per Aasen left Garnet Lending after 4 days.", TEXT, "🙂 Mina Okafor left Acme Bank!"]:
        spans = predictors["names"].predict(text).spans
        assert spans
        for span, after in zip(spans, [*spans[1:], None], strict=True):
            assert text[span.start : span.end] == span.text
            assert span.label in {"ORG", "PERSON"}
            assert 0 < span.probability <= 1
            assert after is None or span.end <= after.start
    assert ("Garnet Lending", "ORG") in {
        (span.text, span.label)
        for span in predictors["names"].predict("Per Aasen left Garnet Lending after 4 days.").spans
    }


def test_a_text_without_entities_has_no_reasons(predictor: Predictor) -> None:
    answer = predictor.predict(NO_ENTITY)
    assert (answer.links, answer.reasons, answer.influence) == ((), (), 0.0)
    if answer.label is None:
        assert answer.without_knowledge == "; ".join(f"{span.text}:{span.label}" for span in answer.spans)
    else:
        assert answer.without_knowledge == answer.label


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u200b", "...", "🙂", "\x00", "\u0301"])
def test_a_text_of_nothing_has_an_answer(text: str, predictor: Predictor) -> None:
    answer = predictor.predict(text)
    assert answer.reasons == ()
    assert json.dumps(answer.as_json())


def test_a_very_long_text_is_cut_off_or_read_in_windows(predictor: Predictor) -> None:
    text = "Acme Bank fell. " + "word " * 50_000 + "Delta Cover rose."
    answer = predictor.predict(text)
    assert [link.text for link in answer.links] == ["Acme Bank", "Delta Cover"]
    read = ["Acme Bank", "Delta Cover"] if predictor.task.name == "names" else ["Acme Bank"]
    assert sorted(answer.links[reason.link].text for reason in answer.reasons) == read
    if predictor.task.name == "names":
        assert max(span.start for span in answer.spans) > 400
        assert answer.unread == 0
        return
    assert answer.label == predictor.predict(text[:400]).label
    assert all(span.end <= 400 for span in answer.spans)
    part = predictor.predict(text[: -answer.unread])
    assert (part.unread, part.probabilities) == (0, answer.probabilities)
    assert f"the last {answer.unread:,} characters of the text were not read" in as_lines(answer)
    assert f"the last {answer.unread:,} characters" in as_html(text, answer)


def test_many_mentions_are_all_reasons_until_the_model_reads_no_more(predictor: Predictor) -> None:
    answer = predictor.predict("Acme Bank, " * 40)
    assert len(answer.links) == 40
    read = [reason.link for reason in answer.reasons]
    assert len(read) > 10
    assert sorted(read) == list(range(len(read)))


@pytest.mark.parametrize(
    "before", ["🙂🙂 ", "👩‍🚀 ", "Cafe\u0301 nai\u0308f: ", "ﬁ ", "\u202e", "漢字 ", "\u200b\u200b"]
)
def test_what_comes_before_a_mention_does_not_move_it(before: str, predictor: Predictor) -> None:
    text = f"{before}Acme Bank rose in week 2."
    answer = predictor.predict(text)
    assert [(link.start, link.text) for link in answer.links] == [(len(before), "Acme Bank")]
    assert [reason.link for reason in answer.reasons] == [0]
    assert all(text[span.start : span.end] == span.text for span in answer.spans)
    feature = predictor.encoder.encode_linked(text, answer.links)
    covered = [offset for offset, mention in zip(feature["offsets"], feature["token_mentions"], strict=True) if mention]
    assert (covered[0][0], covered[-1][1]) == (len(before), len(before) + len("Acme Bank"))


def test_many_threads_get_the_answers_of_one(finetuned: Path) -> None:
    fresh = load_predictors(finetuned)  # nothing is warm yet
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: fresh[("kind", "names")[n % 2]].predict(TEXTS[n % 5]), range(60)))
    alone: dict[tuple[int, int], Answer] = {
        (task, text): fresh[("kind", "names")[task]].predict(TEXTS[text]) for task in range(2) for text in range(5)
    }
    assert found == [alone[n % 2, n % 5] for n in range(60)]


def test_an_answer_can_be_printed(predictor: Predictor) -> None:
    answer = json.loads(json.dumps(predictor.predict(TEXT).as_json()))
    assert answer["links"][1]["id"] == "ex:c0"
    assert {"task", "label", "spans", "influence", "reasons", "without_knowledge"} <= answer.keys()


def refused(run: Path) -> str:
    with pytest.raises(KGError) as caught:
        load_predictors(run)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


def test_a_folder_that_is_no_run_or_not_finetuned_yet_is_refused_in_one_line(tmp_path: Path) -> None:
    assert "InputError" in refused(tmp_path / "nowhere")
    assert "not a run folder" in refused(tmp_path)
    Run.open(tmp_path / "run", some_recipe())
    assert "nothing is fine-tuned yet" in refused(tmp_path / "run")


def test_a_run_whose_snapshot_is_another_one_is_refused_in_one_line(finetuned: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finetuned, run, ignore=shutil.ignore_patterns("jobs"))
    snapshot = Snapshot.load(run / json.loads((run / "manifest.json").read_text())["snapshot"]["path"])
    shutil.rmtree(snapshot.path)
    other = tiny_snapshot(tmp_path / "other")
    shutil.copytree(other.path, snapshot.path)
    said = refused(run)
    assert said.startswith(SnapshotMismatch.__name__)
    assert other.hash[:16] in said
    shutil.rmtree(snapshot.path)
    assert refused(run).startswith(InputError.__name__)


@pytest.mark.parametrize("lost", ["model/model.safetensors", "model/names/config.json", "config.toml"])
def test_a_run_that_lost_a_file_is_refused_in_one_line(lost: str, finetuned: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finetuned, run, ignore=shutil.ignore_patterns("jobs"))
    (run / lost).unlink()
    refused(run)
