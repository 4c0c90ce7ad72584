"""Mirrors: TensorBoard and Weights & Biases, which show what a trace keeps beside what else they show."""
