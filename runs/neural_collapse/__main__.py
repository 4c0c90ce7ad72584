"""The command `python -m runs.neural_collapse`."""

from runs.engine.experiment import main
from runs.neural_collapse import EXPERIMENT

if __name__ == "__main__":
    main(EXPERIMENT)
