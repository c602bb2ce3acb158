"""Run functions on a Ray cluster.

This is the only package that imports Ray, and it does not know what it runs.
"""
