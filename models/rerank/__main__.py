"""``python -m models.rerank``: the command; heavy imports are made when it runs."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from kg import cli


@dataclass(frozen=True, kw_only=True)
class Rerank:
    """Teach the linker from texts with gold links."""

    gold: tyro.conf.Positional[tuple[Path, ...]]
    """JSON lines {"id", "text", "mentions": [{"start", "end", "ids"}]}; ids as in the snapshot, offsets code points.
    A mention may have "candidates", too: the ids that it may denote, the likeliest first."""
    out: Path
    """Folder that the ranker is written to, for `python -m kg link --ranker`."""
    snapshot: Path | None = None
    """Folder written by `python -m kg snapshot`; default the latest below KGFUSE_HOME/snapshots."""
    seed: int = 0
    """Of the networks' first weights and the order of mentions."""

    def run(self) -> None:
        from kg.settings import Settings
        from kg.snapshot import Snapshot, find_snapshot
        from models.rerank.gold import read_gold
        from models.rerank.training import train_ranker

        snapshot = Snapshot.load(find_snapshot(self.snapshot, Settings.from_env()))
        gold = [text for file in self.gold for text in read_gold(file)]
        report = train_ranker(snapshot, gold, self.out, seed=self.seed)
        accuracy = ", ".join(f"{name} {share:.3f}" for name, share in report["accuracy"].items())
        print(f"Crosswise on {len(gold)} texts: right of the mentions given: {accuracy}")
        print(
            f"End to end: F1 {report['f1']:.3f}, precision {report['precision']:.3f}, recall {report['recall']:.3f} "
            f"from confidence {report['threshold']:.2f}"
        )
        print(f"The ranker is in {self.out}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run("python -m models.rerank", (Rerank,), argv)


if __name__ == "__main__":
    sys.exit(main())
