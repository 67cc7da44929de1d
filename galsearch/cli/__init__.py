"""The command line: each verb is its options, one call of the public surface, and printing.

Data goes to stdout; words and progress bars go to stderr. Exit codes: 0 well, 1 a GalsearchError, 2 wrong usage, 130
stopped by Ctrl-C.
"""

from galsearch.cli import atlases, searches, labels, knowledge, discovery, review, watch, pages, service, agents  # isort: skip  their verbs are listed in this order
from galsearch.cli.program import app, main

__all__ = [
    "agents", "app", "atlases", "discovery", "knowledge", "labels", "main", "pages", "review", "searches",
    "service", "watch",
]  # fmt: skip
