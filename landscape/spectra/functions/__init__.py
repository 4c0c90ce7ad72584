"""Functions of a matrix: their traces, and their products with vectors, without the matrix."""
