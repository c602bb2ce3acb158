"""Show what happens in MLflow: the only code that imports it. Nothing here decides what is trained."""
