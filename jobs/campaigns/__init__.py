"""Campaigns to run: each file is a question, and its `chains()` answer it.

A `digits_` twin takes minutes on a laptop.
"""

from pathlib import Path

SHIPPED = Path(__file__).parent
