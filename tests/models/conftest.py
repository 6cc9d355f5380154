"""One small run, fine-tuned once, for all tests that ask its models."""

from pathlib import Path

import pytest

from kg.local_server import Address
from models.train_kgbert import main
from tests.models.tiny_run import recipe


@pytest.fixture(scope="session")
def finetuned(tmp_path_factory: pytest.TempPathFactory, server: Address) -> Path:
    """A run folder with the fused models of a text task and a token task; tests read it and leave it as it is."""
    folder = tmp_path_factory.mktemp("tiny")
    # learnt, but not so well that no mention or word could change an answer: twice the rates, and that hangs on how
    # a CPU rounds
    file = recipe(folder, steps=70, pretrain_steps=0, rates=(1e-3, 2e-3))
    assert main(["finetune", str(file), "--run", str(folder / "run")]) == 0
    return folder / "run"
