"""A number for a text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from torch import Tensor

from models.batch import KnowledgeEncoder
from models.classifiers import SequenceClassifier
from models.examples import Example
from models.kgbert import KGBertForSequenceClassification
from models.objectives.objective import Objective, Reading, Scored


@dataclass(frozen=True)
class Regression(Objective):
    """A number for a text; the model learns it less the mean of the training values and over their deviation.

    The main metric is R² against that mean. Unlike a correlation it is a ratio of sums over examples, so parts of the
    test set and the paired bootstrap are exact; it punishes a wrong scale, which correlations do not see; and unlike
    the absolute error it has no unit, so that tasks can be compared.
    """

    mean: float = 0.0
    deviation: float = 1.0

    main_metric: ClassVar[str] = "r2"
    auto_class: ClassVar[Any] = SequenceClassifier
    kgbert_class: ClassVar[Any] = KGBertForSequenceClassification
    needs: ClassVar[tuple[str, ...]] = ("value",)

    @classmethod
    def of(cls, train: Sequence[Example], everything: Sequence[Example], **options: Any) -> Objective:
        values = [example.value for example in train]
        return cls(mean=float(np.mean(values)), deviation=float(np.std(values)) or 1.0)  # type: ignore[arg-type]

    def options(self) -> dict[str, Any]:
        return {"num_labels": 1, "problem_type": "regression"}

    def encode(self, examples: Sequence[Example], encoder: KnowledgeEncoder) -> list[dict[str, Any]]:
        features = encoder.encode_texts([example.text for example in examples])
        return [{**feature, "labels": self.scaled(one)} for feature, one in zip(features, examples, strict=True)]

    def scaled(self, example: Example) -> float:
        """What the model is to learn of an example."""
        return (float(example.value or 0.0) - self.mean) / self.deviation

    def probabilities(self, raw: Tensor) -> Tensor:
        return raw.float() * self.deviation + self.mean

    def answers(
        self, outputs: Sequence[Any], features: Sequence[Mapping[str, Any]], examples: Sequence[Example]
    ) -> list[Any]:
        return [float(row[0]) * self.deviation + self.mean for row in outputs]

    def score(self, predictions: list[Any], examples: Sequence[Example]) -> Scored:
        gold, given = np.array([float(example.value or 0.0) for example in examples]), np.array(predictions)
        spread, errors = (gold - self.mean) ** 2, (gold - given) ** 2
        varied = len(gold) > 1 and np.ptp(gold) > 0 and np.ptp(given) > 0
        return Scored(
            metrics={
                "r2": float((spread.sum() - errors.sum()) / spread.sum()) if spread.sum() else 0.0,
                "pearson": float(pearsonr(gold, given).statistic) if varied else 0.0,
                "spearman": float(spearmanr(gold, given).statistic) if varied else 0.0,
                "mae": float(np.abs(gold - given).mean()),
            },
            counts=np.stack([spread - errors, spread], axis=1),
            predictions=predictions,
        )

    def read(self, row: NDArray[np.float32], feature: Mapping[str, Any], text: str) -> Reading:
        value = round(float(row[0]), 4)
        return Reading(said=f"{value:g}", value=value, asked=([0],), probabilities={})
