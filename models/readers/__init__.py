"""Readers of published task data, a module a domain."""
