"""The arms of a comparison, by what each model is told; nothing heavy, since the command line names them, too."""

from collections.abc import Mapping
from typing import Literal

Arm = Literal[
    "plain", "null", "shuffled-alike", "shuffled", "random", "types", "descriptions", "fused", "unbanned", "text"
]
ARMS: tuple[Arm, ...] = ("plain", "fused", "shuffled")
"""Of a recipe that names none."""
CONTROLS: tuple[Arm, ...] = ("plain", "null", "shuffled-alike", "shuffled", "random")
"""Arms that know nothing of the facts: a gain that one of them has, too, is not the graph's."""
BASELINES = (
    "majority",
    "tf-idf",
    "hypothesis only",
    "tf-idf per hypothesis",
    "no answer",
    "nearest sentence",
    "nearest choice",
    "first words",
    "nearest text",
    "agreed text",
    "given words",
)
"""Trivial systems, shown beside the arms (``models.baselines``)."""
WITHOUT_KNOWLEDGE: tuple[Arm, ...] = ("plain", "text")
"""Arms that read no entity table."""
ARM_SUMMARIES: Mapping[Arm, str] = {
    "plain": "the base model alone",
    "null": "fused, but every link leads to an entity of which nothing is known: same parameters, same steps",
    "shuffled-alike": "fused with the table shuffled among entities of the same type and like degree",
    "shuffled": "fused with the table shuffled among all entities",
    "random": "fused with random vectors",
    "types": "fused with a table of the entities' types alone",
    "descriptions": "fused with a table of the entities' names and definitions alone",
    "fused": "fused with the graph, less all that would give a label away",
    "unbanned": "fused with the whole graph, answers included: what a leak would give",
    "text": "the base model, with what the graph says of the linked entities written into the text",
}
