"""The command `python -m runs.sscn`."""

import sys

from runs.sscn import command

if __name__ == "__main__":
    command(sys.argv[1:])
