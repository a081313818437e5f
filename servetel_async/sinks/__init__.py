"""Destinations of calls: one module per kind. A sink knows records, but not how they were fetched."""
