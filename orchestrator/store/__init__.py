"""Keep bytes under keys, in a folder or a bucket. Nothing here knows what a step is."""
