"""What the graph says of the entities of a text, in words: knowledge for a model that reads nothing but text."""

from collections import defaultdict
from dataclasses import replace

from kg.linking import Linker
from models.bans import Bans
from models.examples import Example

FACT_TOKENS = 64
"""What a text with facts behind it may be longer by."""
MAX_FACTS = 6
"""Of an entity."""


class Facts:
    """Writes the facts of a snapshot, less what is banned, behind the texts that speak of their entities."""

    def __init__(self, linker: Linker, bans: Bans) -> None:
        self.linker, self.snapshot = linker, linker.snapshot
        self.facts: dict[int, list[str]] = defaultdict(list)
        triples = self.snapshot.triples
        for head, relation, tail in triples[bans.kept(triples, self.snapshot)].tolist():
            words = self.snapshot.relations[relation].lower().replace("_", " ")
            for entity, other in ((head, tail), (tail, head)):
                if len(self.facts[entity]) < MAX_FACTS and self.snapshot.names[other]:
                    self.facts[entity].append(f"{words} {self.snapshot.names[other]}")

    def behind(self, example: Example) -> Example:
        """The example with ``name: facts`` of each linked entity behind its text; places in the text stay."""
        if example.pair is not None:
            linked = [mention.entity for mention in example.pair]
        else:
            linked = [link.id for link in self.linker.link(example.text)]
        index = self.snapshot.index
        entities = dict.fromkeys(index[entity] for entity in linked if entity is not None and entity in index)
        said = [
            f"{self.snapshot.names[entity]}: {', '.join(self.facts[entity])}."
            for entity in entities
            if entity in self.facts
        ]
        return replace(example, text=" ".join([example.text, *said]))
