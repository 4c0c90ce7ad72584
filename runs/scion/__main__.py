"""The command `python -m runs.scion`."""

from runs.engine.experiment import main
from runs.scion import EXPERIMENT

if __name__ == "__main__":
    main(EXPERIMENT)
