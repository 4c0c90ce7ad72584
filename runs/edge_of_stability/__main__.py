"""The command `python -m runs.edge_of_stability`."""

from runs.edge_of_stability import EXPERIMENT
from runs.engine.experiment import main

if __name__ == "__main__":
    main(EXPERIMENT)
