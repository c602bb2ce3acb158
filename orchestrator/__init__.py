"""Decide what must exist, and make it exist. ARCHITECTURE.md says what each room knows."""
