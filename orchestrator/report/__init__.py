"""Turn published numbers into tables, figures and pages."""
