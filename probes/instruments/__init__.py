"""Instruments: the probes, each one an algorithm of `landscape` and the fields that it keeps.

Importing them does not import torch.
"""
