"""A static site of one atlas: a folder that any web server shows, and that visitors search in their own browsers.

`writing` makes it; `folder` knows how its files are named, split and put in place, `vectors`, `cards`, `records` and
`models` what is in them; `serving` previews it. `web/` is the page in TypeScript, built into `assets/`. docs/site.md
has the format.
"""

from galsearch.site.serving import serve_site
from galsearch.site.writing import write_site

__all__ = ["serve_site", "write_site"]
