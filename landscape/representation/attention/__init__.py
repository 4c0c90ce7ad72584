"""The entropy of attention: what a forward pass attends to, head by head, and the bound of spectral norms on it."""
