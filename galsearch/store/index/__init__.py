"""Comparing vectors and words: cells, search, full-text index, projection."""
