"""Publish and open datasets, image lists and weights. Nothing here knows what a chain is."""
