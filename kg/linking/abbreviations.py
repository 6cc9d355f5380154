"""Abbreviations that a text defines itself, ``breast cancer (BC)``, by Schwartz and Hearst (PSB 2003).

Worth 7 points of recall@1 on NCBI-disease when measured for this project.
"""

import re
from collections.abc import Iterator

# Bounded repetitions, so the time stays linear in the text.
_PARENTHESIS = re.compile(r"[(\[]([^()\[\]\s;,:][^()\[\];,:]{0,24}[^()\[\]\s;,:])[)\];,:]")
_MAX_LONG = 200
_WORD = re.compile(r"[^\W_]+")
_LEFT_OUT = frozenset(("a", "and", "for", "in", "of", "on", "or", "the", "to", "with"))


def find_abbreviations(text: str) -> dict[str, tuple[int, int]]:
    """Short form to the code points of its long form; the first definition of a short form counts.

    The long form is the shortest run of words before the parenthesis in which the letters and digits of the short
    form occur in order, its first one at the start of a word.
    """
    return dict(reversed(list(_definitions(text))))


def _definitions(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
    for match in _PARENTHESIS.finditer(text):
        short = match[1]
        if not (2 <= len(short) <= 10 and len(short.split()) <= 2 and short[0].isalnum()):
            continue
        if not any(char.isalpha() for char in short) or short.islower():
            continue
        before = text[max(0, match.start() - _MAX_LONG) : match.start()]
        end = match.start() - len(before) + len(before.rstrip(" \t\r\n,;:"))
        start = _long_form_start(text, short, end)
        if start is not None:
            yield short, (start, end)


def _long_form_start(text: str, short: str, end: int) -> int | None:
    letters = [char for char in short.casefold() if char.isalnum()]
    start = _initials_start(text, letters, end)
    if start is not None:
        return start
    max_words = min(len(letters) + 5, 2 * len(letters))
    position, lowest = end, max(0, end - _MAX_LONG)
    for number, letter in enumerate(reversed(letters)):
        is_first = number == len(letters) - 1
        position -= 1
        while position >= lowest and (
            text[position].casefold() != letter or (is_first and position > 0 and text[position - 1].isalnum())
        ):
            if text[position] in "().;":
                return None
            position -= 1
        if position < lowest:
            return None
    long = text[position:end]
    if len(long) <= len(short) or len(long.split()) > max_words or short in long.split():
        return None
    return position


def _initials_start(text: str, letters: list[str], end: int) -> int | None:
    """Where the long form begins whose words have the letters as initials, words in lower case with none left out.

    Without it ``attenuated adenomatous polyposis coli (AAPC)`` begins with the second word, where all letters occur.
    """
    begin = max(0, end - _MAX_LONG)
    place = len(letters)
    for match in reversed(list(_WORD.finditer(text, begin, end))):
        if text[match.end() : match.end() + 1] in ("(", ")", ".", ";"):
            return None
        if match[0][0].casefold() == letters[place - 1]:
            place -= 1
            if not place:
                return match.start() if match.start() > begin or not begin else None
        elif not (match[0] in _LEFT_OUT and place < len(letters)):
            return None
    return None
