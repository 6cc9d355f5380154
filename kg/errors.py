"""The one tree of failures; each message says what, what was got, what was expected and what to do.

KGError                 exit 1   anything of ours that went wrong
├── UserError           exit 2   the caller can mend it
│   ├── InputError               a file is missing, corrupt or hostile
│   ├── ConfigError              a recipe, option or environment variable is wrong
│   ├── SnapshotMismatch         a checkpoint and a snapshot do not belong together
│   ├── QueryRefused             a Cypher statement that may not or cannot run
│   └── StoreUnavailable         no Neo4j answers at the address given
└── StoreFailed         exit 1   Neo4j answered, and could not do the work
"""

from functools import partial
from pathlib import Path


class KGError(Exception):
    """Base of all failures raised on purpose."""

    exit_code = 1


class UserError(KGError):
    """A mistake that the caller can mend; printed as one line, never as a traceback."""

    exit_code = 2


class InputError(UserError):
    """A file that is missing, corrupt or hostile."""

    def __init__(self, path: Path | str, reason: str, *, line: int | None = None) -> None:
        place = f"{path}:{line}" if line is not None else f"{path}"
        super().__init__(f"{place}: {reason}")
        self.path, self.reason, self.line = Path(path), reason, line

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """What another process needs to raise it again."""
        return partial(type(self), line=self.line), (self.path, self.reason)


class ConfigError(UserError):
    """A recipe, an option or an environment variable has a wrong value."""


class SnapshotMismatch(UserError):
    """A checkpoint or table was made from another snapshot than the one at hand."""


class QueryRefused(UserError):
    """A Cypher statement is not read-only, does not parse, or passed its limits."""


class StoreUnavailable(UserError):
    """No Neo4j answers, or it refuses the credentials."""


class StoreFailed(KGError):
    """Neo4j is there and could not do the work."""
