"""Windows: how a range is cut, read, proved and reconciled."""
