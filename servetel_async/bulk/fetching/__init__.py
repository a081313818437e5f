"""Fetching the pages of a pull: concurrency, cost, retries and outages."""
