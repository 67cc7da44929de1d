"""Unattended watching: pictures come in by a plan, are measured, embedded, scored, identified, and reported."""
