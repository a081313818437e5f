"""Pull, sync and check: a whole range into one destination, with a receipt that says what was proved."""
