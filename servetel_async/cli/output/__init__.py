"""What a command shows: progress, events, messages."""
