"""Base models from folders that nobody vouches for."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from kg.errors import ConfigError
from models.base import load_base, load_config, load_tokenizer
from models.classifiers import RelationClassifier, SequenceClassifier
from tests.models.tiny import tiny_base

CODE = "raise SystemExit('code of a base has run')"


@pytest.fixture
def bringing_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base whose configuration and tokenizer are of its own code, before a user who would say yes."""
    tiny_base(tmp_path)
    (tmp_path / "own.py").write_text(CODE, encoding="utf-8")
    for file, key, value in (
        ("config.json", "AutoConfig", "own.Config"),
        ("tokenizer_config.json", "AutoTokenizer", [None, "own.Tokenizer"]),
    ):
        known: dict[str, Any] = json.loads((tmp_path / file).read_text(encoding="utf-8"))
        known |= {"model_type": "of-its-own", "tokenizer_class": "OfItsOwn", "auto_map": {key: value}}
        (tmp_path / file).write_text(json.dumps(known), encoding="utf-8")
    monkeypatch.setattr("builtins.input", lambda *_: "yes")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return tmp_path


@pytest.mark.parametrize(
    "load",
    [
        load_tokenizer,
        load_config,
        *(
            pytest.param(lambda name, kind=kind: load_base(name, kind), id=kind.__name__)
            for kind in (AutoModelForMaskedLM, AutoModelForSeq2SeqLM, SequenceClassifier, RelationClassifier)
        ),
    ],
)
def test_code_that_a_base_brings_is_never_run_nor_asked_about(load: Any, bringing_code: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load(str(bringing_code))
