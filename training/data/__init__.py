"""Turn original image files into training batches: sources, shards, datasets, transforms."""
