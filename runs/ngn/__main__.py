"""The command `python -m runs.ngn`."""

from runs.engine.experiment import main
from runs.ngn import EXPERIMENT

if __name__ == "__main__":
    main(EXPERIMENT)
