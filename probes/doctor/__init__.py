"""What works here: on this machine, and with a problem of the user's."""
