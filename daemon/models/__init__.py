"""Keras models: networks, versions and their registry, the one that is live, swaps."""
