"""Databases: one row for each call, and the ledger beside them."""
