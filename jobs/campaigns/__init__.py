"""Campaigns to run: each file is a question, and its `chains()` answer it. A `digits_` twin takes minutes on a laptop."""
