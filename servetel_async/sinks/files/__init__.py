"""Files: appended to as a part, noted in a journal, and renamed when they are whole."""
