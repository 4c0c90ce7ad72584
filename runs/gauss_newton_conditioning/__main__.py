"""The command `python -m runs.gauss_newton_conditioning`."""

from runs.engine.experiment import main
from runs.gauss_newton_conditioning import EXPERIMENT

if __name__ == "__main__":
    main(EXPERIMENT)
