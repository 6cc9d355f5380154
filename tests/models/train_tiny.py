"""One training of a tiny fused model, in this process or in one that is killed or has a twin.

python -m tests.models.train_tiny FOLDER [--kill-at STEP] [--dropout P] [--float32]
"""

import argparse
import json
import os
import signal
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

import models.trainer
from models.batch import KnowledgeCollator
from models.entity_table import EntityTable
from models.kgbert import KGBertForSequenceClassification
from models.mentions import hide_mentions
from models.stages.arms import is_fresh
from models.trainer import fit
from models.training import Training
from tests.builders import COMPANIES
from tests.models.tiny import FUSION, open_gates, tiny_base, tiny_encoder

NUM_TEXTS, BATCH = 24, 4
STEPS_A_PASS = NUM_TEXTS // BATCH


def train(folder: Path, *, kill_at: int = 0, dropout: float = 0.1) -> tuple[dict[str, Tensor], list[float]]:
    """Weights and losses after three passes; ``kill_at`` ends the whole process in that step, as a power cut does."""

    def report(share: float) -> None:
        if kill_at and round(share * 3 * STEPS_A_PASS) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    with tempfile.TemporaryDirectory() as made:
        encoder = tiny_encoder(Path(made))
        base = tiny_base(Path(made), hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
        vectors = EntityTable.random(num_entities=len(encoder.rows), dim=8).vectors
        table = EntityTable(tuple(encoder.rows), vectors, "snapshot", "random")
        model = KGBertForSequenceClassification.from_base(base, table, fusion=FUSION)
    open_gates(model, 0.5)
    names = list(COMPANIES)
    texts = [f"{names[i % len(names)]} {'rose' if i % 2 else 'fell sharply'} in week {i}." for i in range(NUM_TEXTS)]
    features = [{**feature, "labels": i % 2} for i, feature in enumerate(encoder.encode_texts(texts))]
    trained = fit(
        model,
        features,
        KnowledgeCollator(tokenizer=encoder.tokenizer),
        Training(epochs=3, batch_size=BATCH, save_steps=3, learning_rate=1e-3, head_learning_rate=5e-3),
        seed=3,
        folder=folder,
        is_fresh=is_fresh,
        report=report,
        prepare=lambda feature, draw: hide_mentions(feature, 0.3, draw),
    )
    return model.state_dict(), [loss for _, loss in trained.losses]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill-at", type=int, default=0)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--float32", action="store_true", help="as on a machine without fast bfloat16")
    asked = parser.parse_args()
    if asked.float32:
        models.trainer.fast_bf16 = lambda: False
    torch.set_num_threads(1)
    weights, losses = train(asked.folder, kill_at=asked.kill_at, dropout=asked.dropout)
    rank = os.environ.get("RANK", "0")
    save_file(weights, asked.folder / f"weights-{rank}.safetensors")
    (asked.folder / f"losses-{rank}.json").write_text(json.dumps(losses))
