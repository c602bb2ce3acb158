"""Train and measure one incremental step. Nothing here knows Ray, MLflow or an object store."""
