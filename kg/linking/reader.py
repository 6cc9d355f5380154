"""The mentions of a text, with their candidates: leftmost longest names, every span that may be one, or given spans."""

from collections.abc import Iterable, Sequence

from kg.linking.abbreviations import find_abbreviations
from kg.linking.candidates import CandidateFinder
from kg.linking.dictionary import Dictionary
from kg.linking.document import Mention
from kg.linking.learned import LearnedNames
from kg.linking.mentions import Proposal, Way, proposals
from kg.linking.names import FUNCTION_WORDS
from kg.linking.tokens import Tokens, name_key
from kg.normalise import normalise


class Reader:
    """Finds mentions by the names of a dictionary and, where there are some, by learned ones."""

    def __init__(self, dictionary: Dictionary, learned: LearnedNames | None = None) -> None:
        self.dictionary, self.learned = dictionary, learned
        self.finder = CandidateFinder(dictionary, learned)
        self._ends = dictionary.ends if learned is None else self._ends_of_both

    def longest(self, tokens: Tokens) -> list[Mention]:
        """Leftmost longest names that the case rules allow."""
        found: list[Mention] = []
        position = 0
        for here in self.proposals(tokens):
            if here[0].first < position:
                continue
            for proposal in here:
                mention = self._mention(tokens, proposal)
                if mention.candidates and not _is_shouted(tokens, proposal):
                    found.append(mention)
                    position = mention.last
                    break
        return found

    def proposed(self, tokens: Tokens) -> list[Mention]:
        """Every span that may be a mention, by its first word, the longest first."""
        mentions = (
            self._mention(tokens, proposal)
            for here in self.proposals(tokens)
            for proposal in here
            if not _is_shouted(tokens, proposal)
        )
        return [mention for mention in mentions if mention.candidates]

    def given(
        self, tokens: Tokens, spans: Sequence[tuple[int, int]], candidates: Sequence[Sequence[str] | None] | None = None
    ) -> list[Mention]:
        """Mentions at spans that are known, with candidates that are named or spelt so; there may be none.

        Args:
            candidates: ids of each mention's candidates, the likeliest first, where they are known.

        Raises:
            ValueError: a span is empty or lies outside of the text, or there are candidates of more or fewer spans.
        """
        if candidates is None:
            candidates = [None] * len(spans)
        if len(candidates) != len(spans):
            raise ValueError(f"candidates of {len(candidates)} spans; expected those of {len(spans)}")
        mentions = []
        for (start, end), (key, way), ids in zip(spans, self.keys(tokens, spans), candidates, strict=True):
            first, last = tokens.words_at(start, end)
            if way is Way.SHORT:
                surface = folded = key
            else:
                surface = tokens.normal.original[start:end]
                folded = normalise(surface).text
            if ids is not None:
                entities = [entity for id in ids if (entity := self.dictionary.index_of(id)) is not None]
                found = self.finder.among(key, surface, folded, entities)
            else:
                named = self.finder.named(key, surface, folded) if self.learned is None else None
                found = named or self.finder.similar(key, surface, folded)
            mentions.append(Mention(first, max(last, first + 1), start, end, key, way, found, ids is not None))
        return mentions

    def keys(self, tokens: Tokens, spans: Sequence[tuple[int, int]]) -> list[tuple[str, Way]]:
        """The key of what stands at each span, that of the long form where the text defines one."""
        long_forms = {
            short: name_key(tokens.normal.original[slice(*long)])
            for short, long in find_abbreviations(tokens.normal.original).items()
        }
        found = []
        for start, end in spans:
            if not 0 <= start < end <= len(tokens.normal.original):
                length = len(tokens.normal.original)
                raise ValueError(f"span ({start}, {end}) is not within the text, which has {length} code points")
            surface = tokens.normal.original[start:end]
            long = long_forms.get(surface)
            found.append((name_key(surface), Way.NAME) if long is None else (long, Way.SHORT))
        return found

    def proposals(self, tokens: Tokens) -> Iterable[list[Proposal]]:
        return proposals(tokens, self._ends, self._is_name)

    def _ends_of_both(self, text: str, start: int) -> list[int]:
        assert self.learned is not None
        ends = self.dictionary.ends(text, start)
        more = self.learned.ends(text, start)
        return [*ends, *(end for end in more if end not in ends)] if more else ends

    def _is_name(self, key: str) -> bool:
        return self.dictionary.is_name(key) or (self.learned is not None and bool(self.learned.links(key)))

    def _mention(self, tokens: Tokens, proposal: Proposal) -> Mention:
        first, last, key, way = proposal.first, proposal.last, proposal.key, proposal.way
        start, end = tokens.span(first, last)
        find = self.finder.named if self.learned is None else self.finder.known
        if way is not Way.NAME:  # said in other words: there is no spelling to compare
            return Mention(first, last, start, end, key, way, find(key, key, key))
        normal, begin, stop = tokens.normal, tokens.starts[first], tokens.ends[last - 1]
        if normal.text[stop : stop + 2] == "'s":
            longer = normal.span(begin, stop + 2)[1]
            if self.finder.is_written(key, normal.original[start:longer], normal.text[begin : stop + 2]):
                end, stop = longer, stop + 2  # "Moody's"
        candidates = find(key, normal.original[start:end], normal.text[begin:stop])
        return Mention(first, last, start, end, key, way, candidates)


def nested(mentions: Sequence[Mention]) -> list[bool]:
    """Whether each span lies within a longer one; spans are ordered as ``Reader.proposed`` gives them."""
    found, reach = [], 0
    for mention in mentions:
        found.append(mention.last <= reach)
        reach = max(reach, mention.last)
    return found


def _is_shouted(tokens: Tokens, proposal: Proposal) -> bool:
    """Whether a function word is in capitals only because its neighbours are: ``METHODS AND RESULTS``."""
    if proposal.last - proposal.first > 1 or proposal.key not in FUNCTION_WORDS or proposal.way is not Way.NAME:
        return False
    first, last = tokens.span(proposal.first, proposal.last)
    original = tokens.normal.original
    before, after = original[max(0, first - 40) : first].split(), original[last : last + 40].split()
    return any(len(word) > 1 and word.isupper() for word in before[-1:] + after[:1])
