"""Real data for experiments: one function a data set, each of which reads what is installed and downloads nothing.

    x, y = fashion_mnist().train

A data set is looked for in the folder of `--data` or LANDSCAPE_DATA, then where a system package, torchvision or a
Python package puts it. Where it is nowhere, the `UserError` says in one line where that was and how to get it.
"""

from runs.shared.data.genes import Samples, khan, leukemia, nci60
from runs.shared.data.images import Images, fashion_mnist, mnist, mnist_5k, standardised
from runs.shared.data.text import english

__all__ = [
    "Images",
    "Samples",
    "english",
    "fashion_mnist",
    "khan",
    "leukemia",
    "mnist",
    "mnist_5k",
    "nci60",
    "standardised",
]
