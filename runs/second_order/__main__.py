"""The command `python -m runs.second_order`."""

from runs.engine.experiment import main
from runs.second_order import EXPERIMENT

if __name__ == "__main__":
    main(EXPERIMENT)
