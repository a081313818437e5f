"""What is known of the API, as pure functions and values: no I/O, no clock of its own, no event loop."""
