"""The output of a command: progress, events, messages."""
