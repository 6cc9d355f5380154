"""A linked text as a page by displaCy: each mention marked, named, and linked to its entity."""

import unicodedata
from collections.abc import Sequence
from html import escape
from urllib.parse import quote, urlsplit

from kg.errors import ConfigError
from kg.types import Link

LINKED, NIL = "#cfe3ff", "#e4e4e4"
"""Backgrounds of mentions."""


def to_html(text: str, links: Sequence[Link], *, entity_url: str | None = None, page: bool = True) -> str:
    """HTML in ASCII, whatever characters the text has; nothing in text or names is taken for markup.

    Args:
        text: what was linked.
        links: its links, in order.
        entity_url: where the id of an entity leads, ``{id}`` and ``{name}`` being all of a CURIE and what is after its
            colon; without it, only an id that is an IRI leads anywhere.
        page: a whole page, or the marked text alone, for a page of one's own.

    Raises:
        ConfigError: spaCy is not installed, or ``entity_url`` is no address of the web.
    """
    if entity_url is not None and not _is_web_address(entity_url):
        raise ConfigError(
            f"The address of entities is {entity_url!r}; expected for example https://example.org/{{id}}."
        )
    try:
        from spacy import displacy
    except ImportError as error:
        raise ConfigError("HTML needs the package spacy; install kgfuse[spacy].") from error
    document = {
        "text": text,
        "ents": [_marked(link, entity_url) for link in links],
        "settings": {"lang": "", "direction": "rtl" if _is_right_to_left(text) else "ltr"},
    }
    html = displacy.render(document, style="ent", manual=True, page=page, jupyter=False)
    return html.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _marked(link: Link, entity_url: str | None) -> dict[str, object]:
    """One entity in displaCy's manual form; of what that holds, displaCy escapes the text alone."""
    if link.id is None:
        label, url = "NIL", None
    else:
        label, url = link.name or link.id, _url_of(link.id, entity_url)
        if url is None:
            label = f"{label} ({link.id})"
    return {
        "start": link.start,
        "end": link.end,
        "label": "",
        "kb_id": escape(link.id or "") if url else "",
        "kb_url": escape(url or ""),
        "params": {"label": escape(label), "bg": NIL if link.id is None else LINKED},
    }


def _url_of(entity_id: str, entity_url: str | None) -> str | None:
    if entity_url is None:
        return entity_id if _is_web_address(entity_id) else None
    name = entity_id.partition(":")[2]
    return entity_url.replace("{id}", quote(entity_id, safe=":")).replace("{name}", quote(name, safe=""))


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def _is_right_to_left(text: str) -> bool:
    """By the first character that has a direction, as browsers do."""
    directions = (unicodedata.bidirectional(char) for char in text)
    return next((direction != "L" for direction in directions if direction in ("L", "R", "AL")), False)
