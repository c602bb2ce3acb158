"""Turn published numbers into tables, figures and pages. Nothing here starts Ray or talks to MLflow."""
