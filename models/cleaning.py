"""What is done to the texts of a corpus before a model sees them: steps that a recipe switches and a run reports."""

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import ftfy
import py3langid
from datasketch import MinHash, MinHashLSH
from rich.table import Table
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from kg.errors import ConfigError
from models.training import Cleaning

Step: TypeAlias = Callable[[str], Iterable[str]]
"""One text to those that it becomes: none, itself, or several."""


@dataclass(kw_only=True)
class Count:
    """What one step was given, what it left, and how long it took."""

    step: str
    texts_in: int = 0
    texts_out: int = 0
    characters_in: int = 0
    characters_out: int = 0
    seconds: float = 0.0


def clean(texts: Iterable[str], steps: Sequence[tuple[Count, Step]]) -> Iterator[str]:
    """Send each text through all steps, one at a time, counting."""
    for text in texts:
        batch = [text]
        for count, step in steps:
            started = time.perf_counter()
            count.texts_in += len(batch)
            count.characters_in += sum(map(len, batch))
            batch = [made for one in batch for made in step(one)]
            count.texts_out += len(batch)
            count.characters_out += sum(map(len, batch))
            count.seconds += time.perf_counter() - started
            if not batch:
                break
        yield from batch


def clean_sample(
    documents: Iterable[str], config: Cleaning, *, most: int, barred: Iterable[str] = (), known: Iterable[str] = ()
) -> tuple[list[str], list[dict[str, Any]]]:
    """At most ``most`` cleaned texts, drawn evenly from all documents, and what each step did.

    In memory are twice ``most`` texts and some 100 bytes for each distinct line. So near-duplicates, which take 5 kB
    each, are looked for among the drawn ones.

    Args:
        barred: texts that models are tested with; neither they nor, with ``near_duplicates``, what is much like them
            gets through.
        known: other texts that need not come again.
    """
    barred, known = list(barred), list(known)
    streaming: list[tuple[str, Step]] = []
    if config.unicode:
        streaming.append(("unicode", normalise))
        barred, known = ([text for one in texts for text in normalise(one)] for texts in (barred, known))
    if config.boilerplate:
        streaming.append(("boilerplate", boilerplate(config.boilerplate)))
    streaming.append(("sentences", sentences) if config.sentences else ("lines", lines))
    streaming.append(("min_length", lambda text: (text,) if len(text) >= config.min_length else ()))
    if config.language:
        streaming.append((f"language {config.language}", language(config.language)))
    streaming.append(("of the tasks", not_among({*barred, *known})))
    if config.duplicates:
        streaming.append(("duplicates", duplicates()))
    last: list[tuple[str, Step]] = []
    if config.near_duplicates:
        last.append(("near_duplicates", near_duplicates(config.near_duplicates, known=(*barred, *known))))
    if config.mask_numbers:
        last.append(("mask_numbers", lambda text: (_NUMBER.sub("0", text),)))
    if config.drop_stop_words:
        last.append(("drop_stop_words", drop_stop_words))
    first, then = ([(Count(step=name), step) for name, step in steps] for steps in (streaming, last))
    drawn = draw(clean(documents, first), 2 * most)
    kept = list(clean(drawn, then))[:most]
    return kept, [{**asdict(count), "seconds": round(count.seconds, 3)} for count, _ in (*first, *then)]


def draw(texts: Iterable[str], most: int) -> list[str]:
    """``most`` of the texts, each as likely as any other, always the same ones, shuffled (reservoir sampling)."""
    rng = random.Random(0)  # noqa: S311
    kept: list[str] = []
    for number, text in enumerate(texts):
        place = number if number < most else rng.randrange(number + 1)
        if place < len(kept):
            kept[place] = text
        elif place < most:
            kept.append(text)
    rng.shuffle(kept)
    return kept


def cleaning_table(counts: Sequence[dict[str, Any]]) -> Table:
    """The counts of ``clean_sample`` to be printed."""
    table = Table("step", *(("texts in", "texts out", "characters in", "characters out", "s")), title="Cleaning")
    for row in counts:
        numbers = (f"{row[key]:,}" for key in ("texts_in", "texts_out", "characters_in", "characters_out"))
        table.add_row(row["step"], *numbers, f"{row['seconds']:.1f}")
    return table


def normalise(text: str) -> Iterable[str]:
    """One way to write each character (NFKC), mojibake mended, no control or invisible characters."""
    mended = ftfy.fix_text(text.translate(_INVISIBLE), normalization="NFKC", uncurl_quotes=False, unescape_html=False)
    return (mended,)


def boilerplate(least: int) -> Step:
    """Drop the lines of a document that ``least`` documents, this one among them, had, whatever their numbers.

    In one pass: the first ones stay, and ``duplicates`` leaves one of each. A document of one line has no boilerplate.
    """
    documents: Counter[int] = Counter()

    def step(text: str) -> Iterable[str]:
        found = text.splitlines()
        if len(found) < 2:
            return (text,)
        keys = [hash(_NUMBER.sub("0", line.strip())) for line in found]
        documents.update(set(keys))
        return ("\n".join(line for line, key in zip(found, keys, strict=True) if documents[key] < least),)

    return step


def lines(text: str) -> Iterable[str]:
    return (line for part in text.splitlines() if (line := part.strip()))


def sentences(text: str) -> Iterator[str]:
    return (text[start:end] for start, end in sentence_spans(text))


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Sentences of each line: they end in ``.``, ``!`` or ``?`` before a capital, a number or a quote.

    The full stop of an abbreviation or of an initial ends none.
    """
    for line in _LINE.finditer(text):
        start = line.start()
        for end in [*_SENTENCE_END.finditer(line.group()), None]:
            until = line.end() if end is None else line.start() + end.end()
            said = text[start:until]
            word = said.rsplit(maxsplit=1)[-1].lstrip("([\"'“‘").rstrip(")]\"'”’") if said.strip() else ""
            if end and word.endswith(".") and (word[:-1].lower() in _ABBREVIATIONS or _INITIAL.fullmatch(word)):
                continue
            if said.strip():
                yield start + len(said) - len(said.lstrip()), until - len(said) + len(said.rstrip())
            start = until


def duplicates() -> Step:
    seen: set[int] = set()

    def step(text: str) -> Iterable[str]:
        key = hash(text)
        if key in seen:
            return ()
        seen.add(key)
        return (text,)

    return step


def not_among(texts: set[str]) -> Step:
    return lambda text: () if text in texts else (text,)


def near_duplicates(threshold: float, *, known: Iterable[str] = ()) -> Step:
    """Drop texts whose word triples are, by MinHash, those of one that came before or is ``known``.

    Texts of less than 20 words stay: two of them that are alike may well differ in the one word that matters.
    """
    index, kept = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS), list[MinHash]()

    def step(text: str) -> Iterable[str]:
        words = _WORD.findall(text.lower())
        if len(words) < _COMPARABLE:
            return (text,)
        triples = {" ".join(words[at : at + 3]).encode() for at in range(len(words) - 2)}
        sketch = MinHash(num_perm=_PERMUTATIONS)
        sketch.update_batch(sorted(triples))
        if any(sketch.jaccard(kept[other]) >= threshold for other in index.query(sketch)):
            return ()
        index.insert(len(kept), sketch, check_duplication=False)
        kept.append(sketch)
        return (text,)

    for text in known:
        step(text)
    return step


def language(code: str) -> Step:
    """Keep texts of one language; shorter ones than can be told are kept.

    Raises:
        ConfigError: the language is not known.
    """
    known = {label for label, _ in py3langid.rank("text")}
    if code not in known:
        raise ConfigError(f"cleaning.language is {code!r}; known are {', '.join(sorted(known))}.")
    return lambda text: (text,) if len(text) < _TELLING or py3langid.classify(text)[0] == code else ()


def drop_stop_words(text: str) -> Iterable[str]:
    kept = " ".join(word for word in text.split() if word.strip(".,;:!?()\"'").lower() not in ENGLISH_STOP_WORDS)
    return (kept,) if kept else ()


_PERMUTATIONS = 128
_COMPARABLE = 20
_TELLING = 40
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u2060\ufeff"))
_LINE = re.compile(r"[^\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
"""As ``str.splitlines`` has them."""
_SENTENCE_END = re.compile(r"[.!?]+[)\]\"'”’]*(?=\s+[(\[\"'“‘]*[A-Z0-9À-Þ])")
_INITIAL = re.compile(r"(?:[A-Za-z]\.)+")
_ABBREVIATIONS = frozenset(
    re.findall(
        r"\S+",
        "mr mrs ms dr prof sr jr st inc corp co ltd llc plc bros no nos art sec fig figs eq vol pp p ch cf vs v al "
        "approx est dept gov gen rep sen hon jan feb mar apr jun jul aug sep sept oct nov dec e.g i.e",
    )
)
