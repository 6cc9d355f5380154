"""Terms of a corpus by C-value (Frantzi, Ananiadou, Mima 2000), over n-grams between stop words or noun chunks."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log2
from typing import Any, TypeAlias

from ingest.mining.corpus import Sentence
from kg.errors import ConfigError

Words: TypeAlias = tuple[str, ...]
MAX_WORDS = 4
LINKING = frozenset({"of"})
"""Stop words that a term may have inside."""
MAX_COUNTED = 2_000_000
"""Different n-grams in memory; beyond it those that came once are forgotten, as in lossy counting."""
HEADED = 3
"""A single word is a term where it is the head, the last word, of so many terms."""
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """a able about above according across after again against all almost along already also although always am
        among an and another any anybody anyone anything are around as at away back be became because become been
        before behind being below best better between beyond both but by came can cannot come could did do does
        doing done down due during each either else enough especially even ever every everyone everything except few
        fewer first for former from further gave get gets give given gives go goes going gone got had has have
        having he hence her here hers herself him himself his how however i if in include included includes
        including indeed instead into is it its itself just keep kept last later latter least less let like likely
        likewise made mainly make makes making many may maybe me might mine more moreover most mostly much must my
        myself namely near nearly need needs neither never nevertheless next no nobody none nor not nothing now of
        off often on once one only onto or other others otherwise our ours ourselves out over own per perhaps quite
        rather really same say says see seem seems seen several shall she should simply since so some somebody
        someone something sometimes still such take taken than that the their theirs them themselves then there
        thereby therefore these they this those though three through throughout thus to together too toward towards
        two under unless unlike until up upon us use used uses using usually various very via was way we well were
        what whatever when whenever where whereas wherever whether which while who whoever whole whom whose why will
        with within without would yes yet you your yours yourself yourselves""",
    )
)


@dataclass(frozen=True)
class Term:
    """A term, with the forms that it was met in."""

    name: str
    """Its most frequent form."""
    forms: tuple[Words, ...]
    """In lower case, the singular first."""
    count: int
    value: float


def find_terms(found: Iterable[Sentence], *, limit: int, min_count: int, spacy_model: str | None) -> dict[Words, Term]:
    """The terms with the highest C-values, by their first form, best first.

    Args:
        limit: at most so many.
        min_count: least number of times that a candidate occurs.
        spacy_model: a pipeline with a parser; its noun chunks are the candidates, instead of n-grams between stop
            words, which also take in verbs.

    Raises:
        ConfigError: there is no such pipeline, or no parser in it.
    """
    written: Counter[str] = Counter()
    for words in _chunks(found, spacy_model) if spacy_model else _ngrams(found):
        written[" ".join(words)] += 1
        if len(written) > MAX_COUNTED:
            written = Counter({form: count for form, count in written.items() if count > 1})
    counts: Counter[str] = Counter()
    for form, count in written.items():
        counts[form.lower()] += count
    merged, plurals = _merge_plurals(counts)
    merged = {words: count for words, count in merged.items() if count >= min_count}
    shown = {" ".join(form) for words in merged for form in (words, *plurals.get(words, ()))}
    forms = {
        form.lower(): form for form in sorted(written, key=lambda form: (written[form], form)) if form.lower() in shown
    }
    values = c_values(merged)
    ranked = sorted((key for key in merged if len(key) > 1 and values[key] > 0), key=lambda key: (-values[key], key))
    heads = Counter(key[-1:] for key in ranked[:limit])
    kept = set(ranked[:limit]) | {head for head, count in heads.items() if count >= HEADED and head in merged}
    chosen = sorted(kept, key=lambda key: (-values[key], key))[:limit]
    return {
        key: Term(
            name=forms[" ".join(key)],
            forms=(key, *plurals.get(key, ())),
            count=merged[key],
            value=values[key],
        )
        for key in chosen
    }


def c_values(counts: Mapping[Words, int]) -> dict[Words, float]:
    """C-value of each candidate: its length times what it occurs beyond the longer candidates that it is part of.

    The length is log2(words + 1), so that single words, which the paper leaves out, have a value, too.
    """
    inside: dict[Words, list[int]] = defaultdict(list)
    for longer, count in counts.items():
        parts = {longer[i:j] for i in range(len(longer)) for j in range(i + 1, len(longer) + 1)} - {longer}
        for part in parts & counts.keys():
            inside[part].append(count)
    return {
        words: log2(len(words) + 1) * (count - (sum(inside[words]) / len(inside[words]) if words in inside else 0))
        for words, count in counts.items()
    }


def _ngrams(found: Iterable[Sentence]) -> Iterator[Sequence[str]]:
    """All runs of up to MAX_WORDS words without stop words, punctuation or numbers, but for ``of`` between two."""
    for sentence in found:
        run: list[str] = []
        for token in [*sentence.tokens, "."]:
            if any(character.isalpha() for character in token):
                run.append(token)
                continue
            for i, word in enumerate(run):
                for j in range(i + 1, min(i + MAX_WORDS, len(run)) + 1) if _is_content(word) else ():
                    if _is_content(run[j - 1]):
                        yield run[i:j]
                    elif run[j - 1].lower() not in LINKING:
                        break
            run = []


def _chunks(found: Iterable[Sentence], model: str) -> Iterator[Sequence[str]]:
    """Noun chunks without the stop words at their ends, and all runs within them that the formula needs."""
    try:
        import spacy

        nlp: Any = spacy.load(model)
        chunks = (chunk for doc in nlp.pipe(sentence.text for sentence in found) for chunk in doc.noun_chunks)
        for chunk in chunks:
            yield from _ngrams([Sentence(chunk.text, "")])
    except ImportError as error:
        raise ConfigError(f"--spacy needs spaCy: pip install 'kgfuse[spacy]' ({error}).") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"--spacy {model}: expected an installed pipeline with a parser ({error}).") from error


def _is_content(word: str) -> bool:
    return len(word) > 1 and word.lower() not in STOP_WORDS


def _merge_plurals(counts: Mapping[str, int]) -> tuple[dict[Words, int], dict[Words, tuple[Words, ...]]]:
    """Count a plural with its singular, where both are there; what was merged, by the singular."""
    merged, plurals = dict(counts), dict[Words, tuple[Words, ...]]()
    for plural in counts:
        for singular in (plural.removesuffix("s"), re.sub("ies$", "y", plural)):
            if singular != plural and not plural.endswith("ss") and singular in merged:
                merged[singular] += merged.pop(plural)
                key = tuple(singular.split(" "))
                plurals[key] = (*plurals.get(key, ()), tuple(plural.split(" ")))
                break
    return {tuple(form.split(" ")): count for form, count in merged.items()}, plurals
