"""Requests on the wire: sessions, pace, retries and tokens. Knows nothing of calls; leaks nothing of aiohttp."""
