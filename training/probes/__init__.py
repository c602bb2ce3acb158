"""Measure what a later model knows of what an earlier one knew, and where the rest was lost."""
