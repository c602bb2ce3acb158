"""Publish datasets, image lists and pretrained weights, and open them. Nothing here knows what a chain is."""
