"""One file behind an address, read by byte ranges: nothing is asked for but what is needed, and it is kept on disk.

`client` sends one request, `cache` keeps blocks on disk, `file` puts both together for whoever reads an atlas.
"""
