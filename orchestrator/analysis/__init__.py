"""Ask published models why they forgot. Nothing here changes a step that exists."""
