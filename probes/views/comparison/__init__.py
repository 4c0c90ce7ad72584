"""Runs beside each other: their curves, the table and the picture."""
