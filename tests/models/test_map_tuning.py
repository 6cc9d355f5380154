"""The map is taught without labels: a masked mention is told by its entity, and a wrong link is told by its text."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, PreTrainedModel

from kg.errors import ConfigError
from models.base import load_base
from models.batch import KnowledgeCollator, KnowledgeEncoder
from models.entity_table import FIRST, NULL, EntityTable
from models.injection import inject_knowledge, knowledge_of
from models.map_tuning import (
    LINKS,
    MENTION,
    TARGET,
    MapTuner,
    collate_targets,
    lead_astray,
    masked_mentions,
    unmasked_states,
)
from models.objectives import RelationClassification
from models.recipe import Task, load_recipe
from models.stages.maptune import tune_map
from models.training import MapTuning
from tests.builders import tiny_snapshot
from tests.models.test_relations import OWNED, OWNS
from tests.models.tiny import FUSION, TABLE, tiny_base, tiny_encoder

TEXTS = ["Acme Bank rose.", "Borealis Insurance fell after Acme Bank sold.", "Corvus Fund fell.", "It rained."]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeEncoder:
    return tiny_encoder(tmp_path_factory.mktemp("map"))


@pytest.fixture
def fused(tmp_path: Path) -> PreTrainedModel:
    return inject_knowledge(load_base(tiny_base(tmp_path / "base"), AutoModel), TABLE, fusion=FUSION)


def with_targets(fused: PreTrainedModel, encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
    texts = [text for text in encoder.encode_texts(TEXTS) if text["mention_entities"]]
    targets = unmasked_states(fused, texts, KnowledgeCollator(tokenizer=encoder.tokenizer))
    variants = masked_mentions(texts, encoder.tokenizer)
    return [{**variant, TARGET: target} for variant, target in zip(variants, targets, strict=True)]


def test_each_mention_is_masked_in_a_text_of_its_own_and_marks_stay(encoder: KnowledgeEncoder) -> None:
    (feature, _) = RelationClassification(("OWNED", "OWNS")).encode([OWNS, OWNED], encoder)
    first, second = masked_mentions([feature], encoder.tokenizer)
    pieces = [" ".join(encoder.tokenizer.convert_ids_to_tokens(one["input_ids"])) for one in (first, second)]
    assert pieces[0].startswith("[CLS] @ [MASK]")
    assert "# bore" in pieces[0]
    assert pieces[1].startswith("[CLS] @ ac")
    assert "bore" not in pieces[1]
    assert pieces[1].split().count("#") == 2
    assert (first[MENTION], second[MENTION]) == (1, 2)
    assert masked_mentions(encoder.encode_texts(["It rained."]), encoder.tokenizer) == []


def test_the_target_is_the_mean_state_of_the_unmasked_mention(
    fused: PreTrainedModel, encoder: KnowledgeEncoder
) -> None:
    texts = encoder.encode_texts([TEXTS[0], TEXTS[1]])
    found = unmasked_states(fused, texts, KnowledgeCollator(tokenizer=encoder.tokenizer))
    assert len(found) == 3
    with torch.no_grad():
        states = fused(input_ids=torch.tensor([texts[1]["input_ids"]])).last_hidden_state[0]
    of_second = [place for place, mention in enumerate(texts[1]["token_mentions"]) if mention == 2]
    assert torch.allclose(found[2], states[of_second].mean(0), atol=1e-5)


def test_a_link_that_is_led_astray_keeps_its_true_entity_as_the_target(encoder: KnowledgeEncoder) -> None:
    (feature,) = encoder.encode_texts([TEXTS[0]])
    assert lead_astray(feature, 0.0, 10, 1)["mention_entities"] == feature["mention_entities"]
    astray = [lead_astray(feature, 1.0, 10, draw) for draw in range(50)]
    assert all(one[LINKS] == [[NULL, FIRST]] for one in astray)
    assert all(one["mention_entities"][0][0] == NULL for one in astray)
    assert len({one["mention_entities"][0][1] for one in astray}) > 5


def trained(tuner: MapTuner, features: list[dict[str, Any]], encoder: KnowledgeEncoder, share: float) -> list[float]:
    collate = collate_targets(KnowledgeCollator(tokenizer=encoder.tokenizer))
    optimizer = torch.optim.Adam([p for p in tuner.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for step in range(60):
        batch = collate([lead_astray(one, share, len(TABLE.ids), 100 * step + n) for n, one in enumerate(features)])
        loss = tuner(**batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_a_taught_model_tells_a_masked_mention_by_its_entity_and_its_base_stays(
    fused: PreTrainedModel, encoder: KnowledgeEncoder
) -> None:
    features = with_targets(fused, encoder)
    before = {name: value.clone() for name, value in fused.state_dict().items() if "knowledge_attention" not in name}
    losses = trained(MapTuner(fused, spread=0.1).train(), features, encoder, 0.0)
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(value, fused.state_dict()[name]) for name, value in before.items())
    tuner = MapTuner(fused.eval(), spread=0.1)
    collate = collate_targets(KnowledgeCollator(tokenizer=encoder.tokenizer))
    told = tuner(**collate([lead_astray(one, 0.0, 10, 0) for one in features]))["loss"]
    astray = [lead_astray(one, 1.0, 10, 3) for one in features]
    misled = tuner(**collate([{**one, LINKS: one["mention_entities"]} for one in astray]))["loss"]
    assert told < misled  # the entity is what it goes by


def test_texts_without_a_linked_mention_teach_no_map(tmp_path: Path) -> None:
    run = tmp_path / "run"
    snapshot = tiny_snapshot(run / "snapshot")
    (run / "table").mkdir()
    vectors = EntityTable.random(num_entities=snapshot.num_entities, dim=8).vectors
    EntityTable(tuple(snapshot.ids), vectors, snapshot.hash, "random").save(run / "table")
    rows = [{"text": f"It rained {i}.", "label": "wet"} for i in range(9)]
    file = tmp_path / "rain.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = Task(name="rain", kind="sequence_classification", reader="table", path=str(file))
    recipe = replace(load_recipe("sample"), base="minilm", tasks=(task,), map=MapTuning(epochs=1.0))
    options: Any = {"recipe": recipe, "snapshot": "snapshot", "tasks": [(task, file)], "arm": "fused"}
    with pytest.raises(ConfigError, match=r"no training text of the tasks has one; set map\.epochs to 0"):
        tune_map(run, tmp_path / "job", print, **options)


def test_where_links_are_wrong_the_choice_learns_to_say_none_of_them(
    fused: PreTrainedModel, encoder: KnowledgeEncoder
) -> None:
    features = with_targets(fused, encoder)

    def believed() -> float:
        batch = KnowledgeCollator(tokenizer=encoder.tokenizer)(features)
        with torch.no_grad():
            read = knowledge_of(fused.eval()(**batch))
        to_null = [one.candidate_weights[..., 0][one.candidate_weights.sum(-1) > 0].mean() for one in read.values()]
        return 1 - float(torch.stack(to_null).mean())

    trained(MapTuner(fused, spread=0.1).train(), features, encoder, 0.0)
    sure = believed()
    trained(MapTuner(fused, spread=0.1).train(), features, encoder, 1.0)
    assert sure > 0.8
    assert believed() < 0.4
