"""The command `python -m runs.function_class`."""

from runs.engine.experiment import main
from runs.function_class import EXPERIMENT

if __name__ == "__main__":
    main(EXPERIMENT)
