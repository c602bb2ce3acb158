"""Show in MLflow what happens and what is recorded. Nothing here decides what is trained."""
