"""A training whose process is killed, and one that two processes share, end as one that is left alone."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.trainer import checkpoints
from tests.models.train_tiny import STEPS_A_PASS, train

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent.parent
SCRIPT = ("-m", "tests.models.train_tiny")


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    weights, losses = train(tmp_path_factory.mktemp("whole"))
    assert len(losses) == 3 * STEPS_A_PASS
    return weights


@pytest.mark.parametrize(
    ("kill_at", "newest"),
    [
        pytest.param(5, "checkpoint-3", id="in the first epoch"),
        pytest.param(STEPS_A_PASS + 4, "checkpoint-9", id="in the second epoch"),
        pytest.param(STEPS_A_PASS, "checkpoint-3", id="in the last step of the first epoch"),
        pytest.param(STEPS_A_PASS + 1, "checkpoint-6", id="after the checkpoint of an epoch's end"),
        pytest.param(3 * STEPS_A_PASS, "checkpoint-15", id="in the very last step"),
    ],
)
def test_a_training_whose_process_is_killed_gives_the_weights_of_an_uninterrupted_one(
    kill_at: int, newest: str, whole: dict[str, Tensor], tmp_path: Path
) -> None:
    killed = command(*SCRIPT, str(tmp_path), "--kill-at", str(kill_at))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert checkpoints(tmp_path)[-1].name == newest
    resumed, _ = train(tmp_path)
    assert resumed.keys() == whole.keys()
    assert {name for name, value in resumed.items() if not torch.equal(value, whole[name])} == set()


def test_two_processes_train_as_one_and_only_the_first_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # bfloat16 rounds by the order of a sum, and weights then differ by 1e-3; without it by 1e-6
    monkeypatch.setattr("models.trainer.fast_bf16", lambda: False)
    expected, losses = train(tmp_path / "one", dropout=0.0)  # what is dropped is each process's own draw
    shared = tmp_path / "two"
    twins = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *SCRIPT)
    done = command(*twins, str(shared), "--dropout", "0", "--float32")
    assert done.returncode == 0, done.stderr
    first, second = (load_file(shared / f"weights-{rank}.safetensors") for rank in (0, 1))
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    torch.testing.assert_close(first, expected, rtol=0, atol=1e-5)
    together = json.loads((shared / "losses-0.json").read_text())
    assert together == pytest.approx(losses, abs=1e-5)
    assert len(list((shared / "tensorboard").iterdir())) == 1
    assert [path.name for path in checkpoints(shared)] == [f"checkpoint-{len(losses)}"]
    left = {path.name for path in checkpoints(shared)[-1].iterdir()}
    assert {"rng_state_0.pth", "rng_state_1.pth", "COMPLETE.json"} <= left
