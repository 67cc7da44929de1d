"""The app: open one atlas, offer its pages.

    streamlit run streamlit_app/app.py -- demo/xdf.duckdb

A page is one file in `views/` with TITLE, ICON, ORDER and `show(atlas)`; being there is all it takes to be offered.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType

import streamlit as st
import widgets

import galsearch

HERE = Path(__file__).parent
VIEWS, ICON = HERE / "views", HERE / "icon.svg"
HOW_TO_START = """
No atlas was given. Make one and open it:

```
make demo
streamlit run streamlit_app/app.py -- demo/xdf.duckdb
```

The path may also stand in the environment variable `GALSEARCH_ATLAS`.
"""


def main() -> None:
    """Show the page of the URL, or say clearly why there is nothing to show."""
    st.set_page_config(page_title="galsearch", page_icon=str(ICON), layout="wide")
    widgets.style()
    path = atlas_path()
    if path is None:
        widgets.title("galsearch", "an embedded search engine for galaxies")
        st.info(HOW_TO_START)
        return
    try:
        atlas = open_atlas(str(path), changed(path))
    except galsearch.GalsearchError as error:
        widgets.title("galsearch", "this atlas cannot be opened")
        widgets.failure(error)
        return
    pages = [
        st.Page(partial(page.show, atlas), title=page.TITLE, icon=page.ICON, url_path=name, default=not place)
        for place, (name, page) in enumerate(find_pages())
    ]
    chosen = st.navigation(pages, position="hidden")
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center", key="head"):
        widgets.title("galsearch", f"{atlas.manifest.title} · {len(atlas):,} galaxies")
        with st.container(horizontal=True, width="content", gap="xsmall", key="pages"):
            for page in pages:
                st.page_link(page, width="content")
    chosen.run()


def atlas_path() -> Path | None:
    """Return the atlas that the command line or the environment names."""
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("GALSEARCH_ATLAS")
    return Path(given) if given else None


def changed(path: Path) -> float:
    """Return when the file was replaced, so that a new bundle under the same name is opened anew; 0 when absent."""
    return path.stat().st_mtime if path.exists() else 0.0


@st.cache_resource(max_entries=2, show_spinner="Opening the atlas")
def open_atlas(path: str, changed: float) -> galsearch.Atlas:
    """Return the one handle that all sessions share; failures are not remembered."""
    return galsearch.open(path)


def find_pages() -> list[tuple[str, ModuleType]]:
    """Return (name, module) of every page, in the order that the pages ask for."""
    names = [path.stem for path in VIEWS.glob("[!_]*.py")]
    return sorted(((name, import_module(f"views.{name}")) for name in names), key=lambda page: page[1].ORDER)


main()
