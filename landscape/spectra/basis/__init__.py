"""Bases of many vectors: where their columns lie (device, host memory, disk) and what is done with them."""
