"""The learned ranker: small networks over what spelling, text and graph say of each candidate.

Trained by ``models.rerank`` and saved as plain weights, so that nothing but numpy runs them. A folder of

``links.parquet``, ``spans.parquet``, ``gram_*.npy``   names (``kg.linking.learned``)
``weights.safetensors``   networks, weights of the mention features, calibration
``manifest.json``         format, features, threshold, what it was trained on, sha256 of each file
"""

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from kg.errors import InputError
from kg.linking.candidates import FEATURES
from kg.linking.dictionary import Dictionary
from kg.linking.learned import LearnedNames
from kg.snapshot import file_sha256

FORMAT = 1
DOCUMENT_FEATURES = ("local", "apposed", "context")
"""What the text around adds, the verdict on spelling alone first."""
GRAPH_FEATURES = ("closest", "closeness", "elsewhere", "beside_best", "taught", "degree")
"""What the graph adds: how close the entities of the other mentions are, the nearest and all of them; how many of them
are the candidate itself; how close it is to the mention's best candidate by spelling and to what gold links denoted."""
NUM_MENTION_BUCKETS = 1 << 18
NETWORKS = ("local", "document", "graph")
Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Network:
    """One hidden layer over standardised features; a score for each candidate."""

    mean: Array
    scale: Array
    hidden: Array
    """``[features, hidden]``"""
    hidden_bias: Array
    out: Array
    """``[hidden]``"""

    def __call__(self, features: Array) -> Array:
        """Scores ``[cand]`` of features ``[cand, features]``."""
        inner = ((features - self.mean) * self.scale) @ self.hidden + self.hidden_bias
        scores: Array = np.maximum(inner, 0) @ self.out
        return scores

    @property
    def nil(self) -> float:
        """Score of there being no right candidate: that of the mean features."""
        return float(np.maximum(self.hidden_bias, 0) @ self.out)


class Ranker:
    """What was trained, for one dictionary."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any], dictionary: Dictionary) -> None:
        self.folder = folder
        self.hash = file_sha256(folder / "manifest.json")
        self.threshold = float(manifest["threshold"])
        self.names = LearnedNames(folder, dictionary)
        weights = load_file(folder / "weights.safetensors")
        self.networks = {
            name: Network(*(weights[f"{name}.{part}"] for part in Network.__dataclass_fields__)) for name in NETWORKS
        }
        self._mention = weights["mention.weight"]
        self._bias = float(weights["mention.bias"][0])
        self._curves = {
            name: (weights[f"{name}.confidence"], weights[f"{name}.accuracy"]) for name in ("entity", "link")
        }

    @classmethod
    def load(cls, folder: Path | str, dictionary: Dictionary) -> "Ranker":
        """Open a folder that ``python -m models.rerank`` wrote.

        Raises:
            InputError: it is no ranker, of another format or for other features, or a file was changed.
        """
        folder = Path(folder)
        file = folder / "manifest.json"
        if not file.is_file():
            raise InputError(folder, "not a ranker (no manifest.json); train one with: python -m models.rerank")
        manifest = json.loads(file.read_text(encoding="utf-8"))
        if manifest.get("format") != FORMAT or manifest.get("features") != feature_names():
            raise InputError(file, "a ranker of another version of kgfuse; train it anew: python -m models.rerank")
        for name, digest in manifest["files"].items():
            if not (folder / name).is_file() or file_sha256(folder / name) != digest:
                raise InputError(folder / name, "missing, or not the bytes that its manifest names; train it anew")
        return cls(folder, manifest, dictionary)

    def mention_probability(self, features: Sequence[str]) -> float:
        """How likely words with these features (``kg.linking.spans``) are a mention."""
        score = self._bias + float(self._mention[hashed(features)].sum())
        return float(1 / (1 + np.exp(-score)))

    def calibrated(self, curve: str, confidence: float) -> float:
        """The share that was right, on gold links, of what had this confidence."""
        confidences, shares = self._curves[curve]
        return float(np.interp(confidence, confidences, shares))


def feature_names() -> list[str]:
    return [*FEATURES, *DOCUMENT_FEATURES, *GRAPH_FEATURES]


def hashed(features: Iterable[str]) -> NDArray[np.int64]:
    """Buckets of named features."""
    return np.array([zlib.crc32(name.encode("utf-8", "surrogatepass")) % NUM_MENTION_BUCKETS for name in features])


def log_shares(scores: Array, nil: float) -> Array:
    """Log-probabilities of the candidates; what is missing to 1 is that of NIL."""
    most = max(float(scores.max()), nil)
    found: Array = scores - (most + np.log(np.exp(scores - most).sum() + np.exp(nil - most)))
    return found


def by_mention(features: Sequence[Array], network: Network) -> list[Array]:
    """Log-probabilities ``[cand]`` of each mention's candidates, all scored at once."""
    sizes = [len(rows) for rows in features]
    if not sum(sizes):
        return [np.zeros(0, np.float32) for _ in features]
    scores, nil = network(np.concatenate(features)), network.nil
    return [log_shares(part, nil) if len(part) else part for part in np.split(scores, np.cumsum(sizes)[:-1])]
