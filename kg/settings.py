"""Addresses and secrets from the environment; nothing else is configured there."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from kg.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the process was told by its environment."""

    home: Path
    """State of this project: local Neo4j, snapshots, canonical tables (``KGFUSE_HOME``)."""
    data: Path | None = None
    """Folder of third-party data sets (``KGFUSE_DATA``); None where there is none."""
    neo4j_uri: str | None = None
    """Address of a Neo4j to use; None starts the local one (``NEO4J_URI``)."""
    neo4j_user: str = "neo4j"
    neo4j_password: str | None = field(default=None, repr=False)
    api_token: str | None = field(default=None, repr=False)
    """Bearer token that the HTTP API asks for (``KGFUSE_API_TOKEN``)."""

    def __post_init__(self) -> None:
        if self.neo4j_uri is None:
            return
        try:
            parts = urlsplit(self.neo4j_uri)
        except ValueError as error:  # which may hold a password, as the address may
            raise ConfigError("NEO4J_URI is no address; expected for example bolt://127.0.0.1:7687.") from error
        if parts.username or parts.password:
            raise ConfigError("NEO4J_URI holds a user name or password; set NEO4J_USER and NEO4J_PASSWORD instead.")
        schemes = {"bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc"}
        if parts.scheme not in schemes or not parts.hostname:
            raise ConfigError(f"NEO4J_URI is {self.neo4j_uri!r}; expected for example bolt://127.0.0.1:7687.")

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> "Settings":
        data = env.get("KGFUSE_DATA")
        if data and not Path(data).is_dir():
            raise ConfigError(f"KGFUSE_DATA is {data!r}, which is not a folder; unset it or name the data folder.")
        home = Path(env.get("KGFUSE_HOME") or ".kgfuse").absolute()
        there = next(path for path in (home, *home.parents) if os.access(path, os.F_OK))
        if not there.is_dir():
            raise ConfigError(f"KGFUSE_HOME is {str(home)!r}, but {there} is not a folder; name another folder.")
        return cls(
            home=home,
            data=Path(data).absolute() if data else None,
            neo4j_uri=env.get("NEO4J_URI") or None,
            neo4j_user=env.get("NEO4J_USER") or "neo4j",
            neo4j_password=env.get("NEO4J_PASSWORD") or None,
            api_token=env.get("KGFUSE_API_TOKEN") or None,
        )
