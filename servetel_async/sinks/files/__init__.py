"""Files: appended to as a part, noted in a journal, and named when they are whole."""
