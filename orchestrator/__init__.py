"""Decide what must exist, and make it exist. ARCHITECTURE.md describes the packages."""
