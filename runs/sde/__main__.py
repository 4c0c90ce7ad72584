"""The command `python -m runs.sde`."""

from runs.engine.experiment import main
from runs.sde import EXPERIMENT

if __name__ == "__main__":
    main(EXPERIMENT)
