"""The app: open one atlas, offer its pages.

    streamlit run streamlit_app/app.py -- demo/xdf.duckdb

How to write a page: put one file into `views/`; being there is all it takes to be offered. The file's name is the
page's URL. It has

    TITLE, ICON, ORDER = "Map", ":material/map:", 3     # in the row of pages; pages are sorted by ORDER

    def needs(atlas: galsearch.Atlas) -> bool: ...       # whether this atlas has what the page shows
    def show(state: State) -> None: ...                  # draws it

and imports `State` from `state`, what to draw with from `widgets`, and nothing of galsearch but its public names. The
page reads the question (`state.query`), its answer (`state.hits()`), the object that is looked at (`state.selected`)
and the atlas (`state.atlas`), and changes them in callbacks of its widgets, by the methods of `State`; they are then
the same on every page and in the URL. What only this page knows goes into its URL by `state.param` and
`state.set_param`. A GalsearchError that `show` raises is shown in its own words. One run draws at most 60 rows with
their pictures, and keeps nothing large: caches hold handles and small tables.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType

import streamlit as st
import widgets
from state import State, of_session

import galsearch

HERE = Path(__file__).parent
VIEWS, ICON = HERE / "views", HERE / "icon.svg"
HOW_TO_START = """
No atlas was given. Make one and open it:

```
make demo
galsearch app demo/xdf.duckdb
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
    run(of_session(atlas))


def run(state: State) -> None:
    """Offer the pages and draw the one of the URL."""
    found = {name: page for name, page in find_pages() if page.needs(state.atlas)}
    pages = {
        name: st.Page(
            partial(draw, page, state),
            title=page.TITLE,
            icon=page.ICON,
            url_path=name,
            default=name == next(iter(found)),
        )
        for name, page in found.items()
    }
    chosen = st.navigation(list(pages.values()), position="hidden")
    state.restore(st.query_params, next(name for name, page in pages.items() if page == chosen))
    state.publish(st.query_params)
    state.pages = pages
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center", key="head"):
        widgets.title("galsearch", f"{state.atlas.manifest.title} · {len(state.atlas):,} galaxies")
        with st.container(horizontal=True, width="content", gap="xsmall", key="pages"):
            for name, page in pages.items():
                st.page_link(page, width="content", query_params=state.link(name))
    if state.link_problem:
        st.warning(widgets.plain(state.link_problem), icon=":material/link_off:")
    chosen.run()
    state.publish(st.query_params)


def draw(page: ModuleType, state: State) -> None:
    """Draw a page; what goes wrong on purpose is said in its own words."""
    try:
        page.show(state)
    except galsearch.GalsearchError as error:
        widgets.failure(error)


def atlas_path() -> Path | None:
    """Return the atlas that this session has built and opened, or that the command line or the environment names."""
    if "opened" in st.session_state:
        return Path(st.session_state.opened)
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("GALSEARCH_ATLAS")
    return Path(given) if given else None


def changed(path: Path) -> float:
    """Return when the file was replaced, so that a new bundle under the same name is opened anew; 0 when absent."""
    return path.stat().st_mtime if path.exists() else 0.0


@st.cache_resource(max_entries=2, show_spinner="Opening the atlas")
def open_atlas(path: str, changed: float) -> galsearch.Atlas:
    """Return the one handle that all sessions share; failures are not remembered."""
    atlas = galsearch.open(path)
    threading.Thread(target=warm, args=(atlas,), daemon=True, name="warm the encoder").start()
    return atlas


def warm(atlas: galsearch.Atlas) -> None:
    """Load the encoder of words before somebody waits for it; an atlas without one says so when it is asked."""
    with contextlib.suppress(galsearch.GalsearchError):
        atlas.embed("galaxy")


def find_pages() -> list[tuple[str, ModuleType]]:
    """Return (name, module) of every page, in the order that the pages ask for."""
    names = [path.stem for path in VIEWS.glob("[!_]*.py")]
    return sorted(((name, import_module(f"views.{name}")) for name in names), key=lambda page: page[1].ORDER)


main()
