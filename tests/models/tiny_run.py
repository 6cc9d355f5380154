"""A tiny graph, labelled sentences and a recipe for them, so that a whole run takes seconds."""

import json
import subprocess
import sys
from pathlib import Path

from transformers import BertModel

from tests.models.tiny import tiny_base

COMPANIES = (
    ("Acme Bank", "bank"),
    ("Borealis Mutual", "insurer"),
    ("Corvus Trust", "bank"),
    ("Delta Cover", "insurer"),
    ("Eskeland Savings", "bank"),
    ("Fjord Shield", "insurer"),
    ("Garnet Lending", "bank"),
    ("Halden Assurance <script>alert(1)</script>", "insurer"),
)
PEOPLE = ("Liv Stensrud", "Per Aasen", "Mina Okafor", "Jon Brekke")
PATTERNS = (
    "{company} rose in week {week}.",
    "{person} left {company} after {week} days.",
    "Shares of {company} fell, said {person} in week {week}.",
)
SAVE_STEPS = 4
MENTIONED = 7
"""Companies that the sentences speak of; the last one is there for its name."""


def graph(folder: Path) -> Path:
    """Companies with a class, an owner, a rival and a director, as Turtle."""
    lines = [
        "@prefix ex: <https://kgfuse.example/tiny/> .",
        "@prefix owl: <http://www.w3.org/2002/07/owl#> .",
        "@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .",
        "@prefix skos: <http://www.w3.org/2004/02/skos/core#> .",
        *(f'ex:{name} a owl:ObjectProperty ; rdfs:label "{name}"@en .' for name in ("ownedBy", "rivalOf", "directs")),
        *(f'ex:{name} a owl:Class ; rdfs:label "{name}"@en .' for name in ("bank", "insurer", "person")),
    ]
    for i, (name, kind) in enumerate(COMPANIES):
        near, far = (i + 2) % len(COMPANIES), (i + 1) % len(COMPANIES)
        lines.append(
            f'ex:c{i} a owl:NamedIndividual, ex:{kind} ; rdfs:label "{name}"@en ; '
            f'skos:definition "{name.split(" <")[0]} is known in the north."@en ; ex:rivalOf ex:c{near} ; '
            f"ex:ownedBy ex:c{far}, ex:c{near} ."
        )
    for i, name in enumerate(PEOPLE):
        directed = ", ".join(f"ex:c{j}" for j in (i, i + 2, i + 4))
        lines.append(f'ex:p{i} a owl:NamedIndividual, ex:person ; rdfs:label "{name}"@en ; ex:directs {directed} .')
    file = folder / "graph.ttl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def sentences(folder: Path) -> Path:
    """Sentences whose label is the kind of their company, with the companies and people in them marked."""
    rows = []
    for week in range(6):
        for i, (company, kind) in enumerate(COMPANIES[:MENTIONED]):
            person = PEOPLE[(i + week) % len(PEOPLE)]
            text = PATTERNS[(i + week) % len(PATTERNS)].format(company=company, person=person, week=week)
            spans = [(text.find(name), name, type_) for name, type_ in ((company, "ORG"), (person, "PERSON"))]
            rows.append(
                {
                    "id": f"s{len(rows)}",
                    "split": ("train", "train", "train", "train", "validation", "test")[week],
                    "text": text,
                    "label": kind,
                    "entities": [
                        {"start": start, "end": start + len(name), "type": type_}
                        for start, name, type_ in spans
                        if start >= 0
                    ],
                }
            )
    file = folder / "sentences.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def corpus(folder: Path) -> Path:
    """Lines on the companies; two of them are sentences that the tasks are tested with."""
    rows = [json.loads(line) for line in (folder / "sentences.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [f"{company} opened an office in the town of {town}." for company, _ in COMPANIES[:7] for town in "ABCDE"]
    lines += [next(row["text"] for row in rows if row["split"] == split) for split in ("validation", "test")]
    file = folder / "corpus.txt"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def recipe(
    folder: Path, *, steps: int = 12, pretrain_steps: int = 12, rates: tuple[float, float] = (1e-3, 1e-3)
) -> Path:
    """A recipe with its data and its base model, all in ``folder``.

    Args:
        rates: learning rates of the text task, which pretraining has, too, and of the token task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    training, of_tokens = (
        f"batch_size = 8\nsave_steps = {SAVE_STEPS}\nlearning_rate = {rate}\nmax_length = 48\n"
        f"head_learning_rate = {rate}\nfreeze_embeddings = false\nmax_steps ="
        for rate in rates
    )
    text = f"""
name = "tiny"
summary = "Eight companies."
limits = "It shows nothing."
base = {json.dumps(tiny_base(folder / "base", BertModel))}
seeds = 1

[graph]
source = "rdf"
paths = [{json.dumps(str(graph(folder)))}]
source_id = "tiny"
ban_relations = ["INSTANCE_OF"]

[gnn]
dim = 16
epochs = 4
evaluate_every = 2

[fusion]
layers = [1, 2]
dim = 16
num_heads = 2

[[tasks]]
name = "kind"
kind = "sequence_classification"
reader = "sample_desks"
path = {json.dumps(str(sentences(folder)))}

[tasks.training]
{training} {steps}
[[tasks]]
name = "names"
kind = "token_classification"
reader = "sample_tags"
path = {json.dumps(str(sentences(folder)))}

[tasks.training]
{of_tokens} {steps}
[pretrain]
corpus = [{json.dumps(str(corpus(folder)))}]
{training} {pretrain_steps}
"""
    file = folder / "tiny.toml"
    file.write_text(text, encoding="utf-8")
    return file


def command(*arguments: str | Path, env: dict[str, str], cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run ``python -m <arguments>`` in a process of its own."""
    root = str(Path(__file__).parent.parent.parent)
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        env={**env, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "TERM": "dumb"},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
