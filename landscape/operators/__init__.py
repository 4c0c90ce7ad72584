"""Operators: A v for the symmetric matrices of curvature. What an algorithm needs to know of one is here.

Each matrix has a file of its own and is handed on by `landscape`.
"""

from landscape.operators.linear import LinearOperator
from landscape.operators.matrix import MatrixOperator
from landscape.operators.vectors import Kind, VectorSpace

__all__ = ["Kind", "LinearOperator", "MatrixOperator", "VectorSpace"]
