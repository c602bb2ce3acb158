"""From original image files to training batches: sources, shards, datasets, transforms."""
