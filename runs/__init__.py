"""Experiments, one file per claim that is reproduced, and the benchmarks against peers. Not installed."""
