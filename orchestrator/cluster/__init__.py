"""Run functions on a Ray cluster: the only code that imports Ray. Nothing here knows what it runs."""
