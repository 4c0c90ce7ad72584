"""Units of a network: which axes of which parameters may be permuted together without changing the function."""
