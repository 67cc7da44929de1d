"""Services over an atlas: HTTP, the Virtual Observatory, agents."""
