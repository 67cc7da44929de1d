"""Run the command line: `python -m galsearch.cli`."""

from galsearch.cli import main

if __name__ == "__main__":
    main()
