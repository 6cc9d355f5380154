"""Text to links: which entities of a snapshot a text names, and how sure that is."""

from kg.linking.html import to_html
from kg.linking.linker import DEFAULT_THRESHOLD, Linker

__all__ = ["DEFAULT_THRESHOLD", "Linker", "to_html"]
