"""The graph side: store, snapshot, linker and API. Never imports torch."""
