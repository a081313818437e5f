"""Calls as a table: its columns and its timestamps."""
