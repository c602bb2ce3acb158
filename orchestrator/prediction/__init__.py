"""Predicts photos with published steps, and exports their models."""
