"""Unattended watching: pictures come in from sources by a plan, are measured, embedded, scored, identified, reported."""
