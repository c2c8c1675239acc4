"""Keras models: networks, versions and their registry, the one that is live, swaps."""

CLASSES = 10  # the digits 0 to 9, in this order wherever there is a number for each
