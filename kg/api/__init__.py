"""HTTP: links and graph for other programs. An app is composed of routers; nothing is global."""

from kg.api.app import create_app
from kg.api.cypher import CypherLimits
from kg.api.graph import graph_router
from kg.api.links import LinkView, link_router
from kg.api.server import check_address, serve

__all__ = ["CypherLimits", "LinkView", "check_address", "create_app", "graph_router", "link_router", "serve"]
