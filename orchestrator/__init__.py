"""Decides what must exist and sees that it comes to exist: keys, store, leases, Ray, MLflow, tables, reports."""
