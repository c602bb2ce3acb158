"""Decide what must exist and look up what does. Nothing here starts, trains or writes a result."""
