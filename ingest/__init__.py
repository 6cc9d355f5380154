"""From RDF and other dumps into Neo4j."""
