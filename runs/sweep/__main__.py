"""The command `python -m runs.sweep`."""

import sys

from runs.sweep.command import main

if __name__ == "__main__":
    main(sys.argv[1:])
