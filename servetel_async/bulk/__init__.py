"""The pull job: a whole range into one destination, with a receipt that says what it is worth."""
