"""Adapters: one module per family of networks, each returning a `ModelSpec`."""
