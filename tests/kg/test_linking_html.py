"""The page of a linked text: what it shows and where it leads, and that no text or name becomes markup."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from kg.__main__ import main
from kg.errors import ConfigError
from kg.linking import Linker, to_html
from kg.types import Link
from tests.builders import tiny_snapshot

HOSTILE = "<script>alert('x')</script>\" onmouseover=\"alert(1)"


class Page(HTMLParser):
    """Tags with their attributes, marked texts, and all text of the body, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.marks: list[str] = []
        self.text = ""
        self._inside: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "br":
            self.text += "\n"
        else:
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._inside.pop() == tag

    def handle_data(self, data: str) -> None:
        if "mark" in self._inside and "span" not in self._inside:
            self.marks += [data.strip()] if data.strip() else []
        self.text += data

    def links(self) -> list[str | None]:
        return [attributes["href"] for tag, attributes in self.tags if tag == "a"]


@pytest.fixture
def linker(tmp_path: Path) -> Linker:
    return Linker.load(
        tiny_snapshot(tmp_path / "v1", names=("Acme Bank", "Borealis", HOSTILE, "בנק לאומי"), triples=())
    )


def test_a_page_marks_mentions_and_leads_to_their_entities(linker: Linker) -> None:
    text = "Acme Bank owns\nBorealis {0} 😀."
    page = Page(to_html(text, linker.link(text), entity_url="https://example.org/of/{id}?name={name}"))
    assert page.marks == ["Acme Bank", "Borealis"]
    assert page.links() == ["https://example.org/of/ex:0?name=0", "https://example.org/of/ex:1?name=1"]
    assert all(word in page.text for word in ("owns\n", "{0} 😀.", "ex:0", "ex:1"))


def test_an_id_that_is_an_address_leads_there_and_others_nowhere() -> None:
    def link(id: str) -> Link:
        return Link(start=0, end=1, text="x", id=id, name="X", confidence=1.0)

    assert Page(to_html("x", [link("https://example.org/x")])).links() == ["https://example.org/x"]
    for id in ("ex:1", "javascript:alert(1)", "data:text/html,x", "http://[", "//example.org"):
        page = Page(to_html("x", [link(id)]))
        assert page.links() == []
        assert f"X ({id})" in page.text


def test_a_mention_without_an_entity_says_so() -> None:
    nil = Link(start=0, end=4, text="bank", id=None, name=None, confidence=0.1)
    page = Page(to_html("bank", [nil], entity_url="https://example.org/{id}"))
    assert (page.marks, page.links(), "NIL" in page.text) == (["bank"], [], True)


@pytest.mark.parametrize("entity_url", [None, "https://example.org/{id}?a=1&b={name}"])
def test_neither_text_nor_names_nor_ids_become_markup(linker: Linker, entity_url: str | None) -> None:
    text = f"{HOSTILE} & Acme Bank &lt; </mark></body>"
    links = linker.link(text)
    assert [link.id for link in links] == ["ex:2", "ex:0"]
    links += [Link(start=len(text) - 2, end=len(text), text="y>", id=HOSTILE, name=HOSTILE, confidence=1.0)]
    plain = Page(to_html("Acme Bank", linker.link("Acme Bank"), entity_url=entity_url))
    page = Page(to_html(text, links, entity_url=entity_url))
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in plain.tags}
    assert {name for _, attributes in page.tags for name in attributes} == {
        name for _, attributes in plain.tags for name in attributes
    }
    assert page.marks == [HOSTILE, "Acme Bank", "y>"]
    assert page.text.count(HOSTILE) == 4  # mention, two names, an id
    assert all(str(href).startswith("https://example.org/") for href in page.links())


def test_any_character_survives_in_ascii_and_the_direction_is_that_of_the_text(linker: Linker) -> None:
    text = "… בנק לאומי \ud800 \x00 é"
    html = to_html(text, linker.link(text))
    assert html.isascii()
    assert "direction: rtl" in html
    assert Page(html).marks == ["בנק לאומי"]
    assert "direction: ltr" in to_html("123 Acme Bank בנק לאומי", [])


def test_the_text_alone_is_no_page(linker: Linker) -> None:
    assert to_html("Acme Bank", linker.link("Acme Bank"), page=False).startswith("<div")
    assert to_html("Acme Bank", linker.link("Acme Bank")).startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("entity_url", ["javascript:alert(1)//{id}", "{id}", "example.org/{id}", "http://["])
def test_an_address_that_is_none_is_refused(entity_url: str) -> None:
    with pytest.raises(ConfigError, match="address of entities"):
        to_html("x", [], entity_url=entity_url)


def test_the_command_writes_the_page(linker: Linker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "page.html"
    where = ["--snapshot", str(linker.snapshot.path), "--html", str(file)]
    assert main(["link", "Acme Bank é", *where, "--entity-url", "https://example.org/{name}"]) == 0
    assert capsys.readouterr().out == f"1 links, see {file}\n"
    assert Page(file.read_text("ascii")).links() == ["https://example.org/0"]
