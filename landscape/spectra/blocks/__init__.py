"""Spectra of all diagonal blocks of a matrix at once: their products are made together."""
