"""Where calls go: one file per kind of destination. A sink knows records and nothing of how they were got."""
