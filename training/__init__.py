"""Trains and measures one incremental step; knows no Ray, no MLflow and no object store."""
