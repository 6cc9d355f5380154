"""Files that tests of the readers write, and all that is read of them."""

import json
from pathlib import Path

from models.examples import Example, Splits


def put(file: Path, content: object) -> Path:
    """Write text as it is, and anything else as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def rows(*objects: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in objects)


def everything(splits: Splits) -> list[Example]:
    return [*splits.train, *splits.validation, *splits.test]
