"""A place on the web for one atlas: the files of a Hugging Face Docker Space, which also run wherever Docker does.

`spaces` knows what a Space has to look like, `wheels` how galsearch itself and the versions in use get there: it is not
on the package index, so the wheel is put together from the installed files.
"""

from galsearch.space.spaces import PORT, write_space

__all__ = ["PORT", "write_space"]
