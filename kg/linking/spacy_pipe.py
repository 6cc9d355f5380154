"""The spaCy component ``kg_linker``: the links of a snapshot on a ``Doc``, the same that ``Linker.link`` gives.

``nlp.add_pipe("kg_linker", config={"snapshot": …})`` finds it by its entry point. Needs ``kgfuse[spacy]``.
"""

import json
from pathlib import Path
from typing import Any, Literal

from spacy.language import Language
from spacy.tokens import Doc, Span

from kg.linking.linker import Linker
from kg.linking.reference import LinkerReference, check_hash
from kg.settings import Settings
from kg.snapshot import find_snapshot
from kg.types import Link

NIL = "NIL"
"""``kb_id_`` of a mention that has no entity, as in spaCy's own entity linker and scorer."""

Detect = Literal["dictionary", "ents", "both"]
AlignmentMode = Literal["strict", "contract", "expand"]


def candidates_of(span: Span) -> list[dict[str, Any]]:
    """``span._.kg``: what the mention may denote, best first; none where nothing was linked."""
    link = span._.kg_link
    return link["candidates"] if link else []


Span.set_extension("kg_link", default=None, force=True)
Span.set_extension("kg", getter=candidates_of, force=True)


@Language.factory(
    "kg_linker",
    assigns=["doc.spans", "doc.ents", "span._.kg", "span._.kg_link"],
    default_config={
        "snapshot": None,
        "ranker": None,
        "graph": True,
        "threshold": None,
        "max_candidates": 8,
        "detect": "dictionary",
        "alignment_mode": "expand",
        "overwrite_ents": False,
        "label": "ENTITY",
    },
)
def make_kg_linker(
    nlp: Language,
    name: str,
    snapshot: str | None,
    ranker: str | None,
    graph: bool,
    threshold: float | None,
    max_candidates: int,
    detect: Detect,
    alignment_mode: AlignmentMode,
    overwrite_ents: bool,
    label: str,
) -> "KGLinker":
    """The component of a pipeline.

    Args:
        nlp: the pipeline.
        name: what it calls the component.
        snapshot: folder written by ``python -m kg snapshot``; None for the latest one below KGFUSE_HOME.
        ranker, graph, threshold, max_candidates: see ``Linker.load``.
        detect: which mentions are linked: names found by the linker, ``doc.ents`` of earlier components, or both.
        alignment_mode: what becomes of a mention that begins or ends within a token, as in ``Doc.char_span``:
            ``expand`` takes the whole token, ``contract`` and ``strict`` may lose the mention. ``span._.kg_link`` has
            the exact code points in any case.
        overwrite_ents: let links replace entities that overlap them, and ids that entities have.
        label: of mentions that are no entities of earlier components, which keep theirs.
    """
    folder = find_snapshot(Path(snapshot) if snapshot else None, Settings.from_env())
    linker = Linker.load(folder, ranker=ranker, graph=graph, threshold=threshold, max_candidates=max_candidates)
    return KGLinker(linker, detect=detect, alignment_mode=alignment_mode, overwrite_ents=overwrite_ents, label=label)


class KGLinker:
    """Sets ``doc.spans["kg"]``, all mentions without overlaps; what is linked is in ``doc.ents``, too.

    ``kb_id_`` of a span is the id of its entity, or ``NIL``; ``span._.kg`` are its candidates (id, name, score), and
    ``span._.kg_link`` is the link as the command line and the HTTP API print it, in code points of ``doc.text``.
    """

    def __init__(
        self,
        linker: Linker,
        *,
        detect: Detect = "dictionary",
        alignment_mode: AlignmentMode = "expand",
        overwrite_ents: bool = False,
        label: str = "ENTITY",
    ) -> None:
        self.linker, self.detect, self.alignment_mode = linker, detect, alignment_mode
        self.overwrite_ents, self.label = overwrite_ents, label

    def __call__(self, doc: Doc) -> Doc:
        spans = []
        labels = {(ent.start_char, ent.end_char): ent.label_ for ent in doc.ents}
        for link in self._links(doc):
            label = labels.get((link.start, link.end), self.label)
            span = doc.char_span(link.start, link.end, label, kb_id=link.id or NIL, alignment_mode=self.alignment_mode)
            if span is not None:
                spans.append((span, link))
        kept = _without_overlaps(spans)
        for span, link in kept:
            span._.kg_link = link.as_json()
        doc.spans["kg"] = [span for span, _ in kept]
        self._fill_ents(doc, [span for span, _ in kept])
        return doc

    def _links(self, doc: Doc) -> list[Link]:
        links = []
        if self.detect != "ents":
            links += self.linker.link(doc.text)
        if self.detect != "dictionary":
            links += self.linker.link_spans(doc.text, [(ent.start_char, ent.end_char) for ent in doc.ents])
        return links

    def _fill_ents(self, doc: Doc, spans: list[Span]) -> None:
        """Add what is linked to ``doc.ents``, or only its id where an entity has the same tokens."""
        ents = {(ent.start, ent.end): ent for ent in doc.ents}
        taken = {i: key for key in ents for i in range(*key)}
        for span in spans:
            key = span.start, span.end
            ent = ents.get(key)
            if ent is not None:
                if ent.kb_id_ in ("", NIL) or (self.overwrite_ents and span.kb_id_ != NIL):
                    ent.kb_id_ = span.kb_id_
            elif span.kb_id_ != NIL:
                beneath = {taken[i] for i in range(*key) if i in taken}
                if self.overwrite_ents or not beneath:
                    for other in beneath:
                        ents.pop(other, None)
                    ents[key] = span
        doc.ents = list(ents.values())

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the snapshot itself."""
        options = (self.detect, self.alignment_mode, self.overwrite_ents, self.label)
        return _reopened, (LinkerReference.to(self.linker), *options)

    def to_bytes(self, *, exclude: Any = ()) -> bytes:
        """A pointer to the snapshot, and its hash; not a copy of it."""
        reference = LinkerReference.to(self.linker)
        return json.dumps({"snapshot": str(reference.snapshot), "hash": reference.hash}).encode()

    def from_bytes(self, data: bytes, *, exclude: Any = ()) -> "KGLinker":
        """Check that this component has the snapshot that was saved.

        Raises:
            SnapshotMismatch: naming both hashes.
        """
        check_hash(self.linker, json.loads(data)["hash"])
        return self

    def to_disk(self, path: Path | str, *, exclude: Any = ()) -> None:
        Path(path).write_bytes(self.to_bytes())

    def from_disk(self, path: Path | str, *, exclude: Any = ()) -> "KGLinker":
        return self.from_bytes(Path(path).read_bytes())


def _reopened(reference: LinkerReference, *options: Any) -> KGLinker:
    names = ("detect", "alignment_mode", "overwrite_ents", "label")
    return KGLinker(reference.open(), **dict(zip(names, options, strict=True)))


def _without_overlaps(spans: list[tuple[Span, Link]]) -> list[tuple[Span, Link]]:
    """Spans that share no token, in order: linked ones before NIL, then longer ones, then earlier ones."""
    kept, taken = [], set[int]()
    for span, link in sorted(spans, key=lambda pair: (pair[1].id is None, -len(pair[0]), pair[0].start)):
        tokens = range(span.start, span.end)
        if taken.isdisjoint(tokens):
            taken.update(tokens)
            kept.append((span, link))
    return sorted(kept, key=lambda pair: pair[0].start)
