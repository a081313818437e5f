"""HTTP requests: sessions, pace, retries and tokens. Knows nothing of calls; exposes nothing of aiohttp."""
