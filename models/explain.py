"""``python -m models.explain RUN TEXT``: what a model says of a text, and which entities made it say so."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from kg import cli

if TYPE_CHECKING:
    from models.answer import Answer
    from models.words import Words


@dataclass(frozen=True, kw_only=True)
class Explain:
    """Print the answer for a text, with the influence of each linked entity and what the graph says of it."""

    run_folder: tyro.conf.Positional[Path]
    """Run folder written by models.train_kgbert."""
    text: tyro.conf.Positional[str]
    """The text to answer for."""
    task: str | None = None
    """Task of the run; default its first."""
    second: str = ""
    """What is put to the text, for a task that reads both: a hypothesis, a question."""
    choices: tuple[str, ...] = ()
    """What to choose from, for a task that chooses."""
    words: bool = False
    """Say also what each word did, by integrated gradients; takes seconds."""
    json: bool = False
    """Print JSON."""
    html: Path | None = None
    """Write a page of its own with the text and its entities marked."""

    def run(self) -> None:
        from kg.errors import ConfigError
        from models.predictor import choose, load_predictors
        from models.run import write_text

        if self.json and self.html:
            raise ConfigError("Give either --json or --html, not both.")
        if self.html and not self.html.parent.is_dir():
            raise ConfigError(f"--html {self.html}: there is no folder {self.html.parent}.")
        try:
            self.text.encode()
        except UnicodeEncodeError as error:
            raise ConfigError("TEXT holds bytes that are not UTF-8.") from error
        answer = choose(load_predictors(self.run_folder), self.task).predict(
            self.text, second=self.second, choices=self.choices, words=self.words
        )
        if self.html:
            read = "\n".join(part for part in (self.text, self.second, answer.retrieved) if part)
            write_text(self.html, as_html(read, answer))
            print(self.html)
        elif self.json:
            print(json.dumps(answer.as_json(), ensure_ascii=False))
        else:
            print(as_lines(answer))


def as_lines(answer: "Answer") -> str:
    """The answer for a terminal."""
    lines = [f"{answer.task}: {_said(answer)}"]
    if answer.probabilities:
        ordered = sorted(answer.probabilities.items(), key=lambda pair: -pair[1])
        lines.append("  " + ", ".join(f"{label} {value:.2f}" for label, value in ordered))
    if answer.retrieved is not None:
        lines.append(f"  read beside it, of a training text near to it: {answer.retrieved}")
    if answer.unread:
        lines.append(f"  {_unread_said(answer)}")
    without = answer.without_knowledge or "nothing found"
    lines.append(f"{answer.influence:+.3f}  all knowledge; without it: {without}")
    for reason in answer.reasons:
        link = answer.links[reason.link]
        read = (
            f"attention {reason.attention:.2f}, gate {reason.gate:.2f}; without it: {reason.without or 'nothing found'}"
        )
        lines.append(f"{reason.influence:+.3f}  {link.text!r} → {link.name} ({link.id}), {read}")
        lines += [f"          {fact}" for fact in reason.facts]
    if answer.unmeasured:
        lines.append(_unmeasured_said(answer))
    if not answer.reasons:
        lines.append("no linked entity: this answer rests on the words alone")
    if answer.words:
        lines.append(f"words, from {_words_said(answer.words)}")
        lines += [f"{word.attribution:+.3f}  {word.text}" for word in answer.words.words]
    return "\n".join(lines)


def as_html(text: str, answer: "Answer") -> str:
    """One file with no script and nothing fetched: the text with its entities, blue for the answer, red against it."""
    influence = {reason.link: reason.influence for reason in answer.reasons}
    strongest = max((abs(value) for value in influence.values()), default=0.0) or 1.0
    parts, position = [], 0
    for number, link in enumerate(answer.links):
        if link.end > len(text):
            continue  # in a choice, which is not shown
        value = influence.get(number, 0.0)
        title = f"{link.name or 'NIL'} ({link.id or 'no entity'}), influence {value:+.3f}"
        parts += [escape(text[position : link.start]), _mark(text[link.start : link.end], value / strongest, title)]
        position = link.end
    rows = "".join(
        f"<tr><td>{reason.influence:+.3f}</td><td>{escape(answer.links[reason.link].text)}</td>"
        f"<td>{escape(str(answer.links[reason.link].name))}<br><small>{escape(str(answer.links[reason.link].id))}</small>"
        f"</td><td>{reason.attention:.2f}</td><td>{reason.gate:.2f}</td>"
        f"<td>{escape(reason.without or 'nothing found')}</td><td>{'<br>'.join(map(escape, reason.facts))}</td></tr>"
        for reason in answer.reasons
    )
    body = f"<p>{''.join([*parts, escape(text[position:])])}</p>"
    if answer.unread:
        body += f"<p>{_unread_said(answer)}</p>"
    if answer.unmeasured:
        body += f"<p>{_unmeasured_said(answer)}</p>"
    header = "".join(
        f"<th>{name}</th>" for name in ("influence", "mention", "entity", "attention", "gate", "without it", "facts")
    )
    table = f"<table><tr>{header}</tr>{rows}</table>"
    return _PAGE.format(
        task=escape(answer.task),
        said=escape(_said(answer)),
        influence=f"{answer.influence:+.3f}",
        without=escape(answer.without_knowledge or "nothing found"),
        body=body,
        words=_words_as_html(text, answer.words) if answer.words else "",
        table=table if rows else "<p>No linked entity: this answer rests on the words alone.</p>",
    )


def _mark(text: str, strength: float, title: str) -> str:
    colour = f"rgba({'31,119,180' if strength >= 0 else '214,39,40'},{0.1 + 0.5 * abs(strength):.2f})"
    return f'<mark style="background:{colour}" title="{escape(title)}">{escape(text)}</mark>'


def _words_said(words: "Words") -> str:
    return f"{words.baseline:.2f} for a text of masks; their sum misses the answer by {abs(words.error):.3f}"


def _words_as_html(text: str, words: "Words") -> str:
    strongest = max((abs(word.attribution) for word in words.words), default=0.0) or 1.0
    parts, position = [], 0
    for word in words.words:
        mark = _mark(word.text, word.attribution / strongest, f"{word.attribution:+.3f}")
        parts += [escape(text[position : word.start]), mark]
        position = word.end
    return f"<p>Words, from {_words_said(words)}:</p><p>{''.join([*parts, escape(text[position:])])}</p>"


def _unread_said(answer: "Answer") -> str:
    return f"the last {answer.unread:,} characters of the text were not read: it is longer than the model reads"


def _unmeasured_said(answer: "Answer") -> str:
    return f"{answer.unmeasured:,} more entities are linked, which were let in less: what each did was not measured"


def _said(answer: "Answer") -> str:
    if answer.label is not None:
        return f"{answer.label} ({answer.probabilities[answer.label]:.2f})"
    spans = "; ".join(f"{span.text}:{span.label} ({span.probability:.2f})" for span in answer.spans)
    return spans or answer.said or "nothing found"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{task}: {said}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse}}
td,th{{text-align:left;vertical-align:top;padding:.3rem .8rem;border-top:1px solid #ccc}}
td:last-child{{font-size:.85rem}}mark{{border-radius:3px;padding:0 2px}}</style></head>
<body><h1>{task}: {said}</h1><p>Without knowledge: {without}. All knowledge together: {influence}</p>
{body}{table}{words}</body></html>
"""


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run("python -m models.explain", [Explain], argv)


if __name__ == "__main__":
    sys.exit(main())
