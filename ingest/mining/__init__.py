"""A starter graph from a corpus: terms, and relations between them with their evidence."""
