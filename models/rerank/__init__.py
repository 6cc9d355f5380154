"""Teaching the entity linker from texts with gold links; what comes of it is run by ``kg.linking.ranker``."""
