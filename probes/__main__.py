"""`python -m probes` is the command `landscape`."""

from probes.cli import main

main()
