"""Questions to trained models: what a later model still knows of what an earlier one knew, and where it lost it."""
