"""Fetching the pages of a pull: how many at once, what they cost, and what an outage changes."""
