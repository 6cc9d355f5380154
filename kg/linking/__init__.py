"""Text to links: which entities of a snapshot a text names, and how sure that is."""

from kg.linking.linker import DEFAULT_THRESHOLD, Linker

__all__ = ["DEFAULT_THRESHOLD", "Linker"]
