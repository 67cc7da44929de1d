"""Plots of a page: what is counted, where it lies, how it is drawn."""
