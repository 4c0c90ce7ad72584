"""Pictures: one file for each kind of measurement."""
