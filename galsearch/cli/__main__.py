"""Run the command line: `python -m galsearch.cli`."""

from galsearch.cli import main

main()
