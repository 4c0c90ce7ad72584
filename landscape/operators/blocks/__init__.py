"""Diagonal blocks of a curvature matrix: which parameters make one, and products with all of them at once."""
