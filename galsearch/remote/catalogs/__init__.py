"""Catalog services: SIMBAD, NED and tables of VizieR, a file each, behind one bounded, rate-limited, caching client."""
