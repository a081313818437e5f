"""Formats of files: NDJSON, CSV, Parquet."""
