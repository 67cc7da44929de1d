"""Protocols of the Virtual Observatory: cone search, TAP, SIA, SSA, SODA, VOSI, and a record for registries."""
