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
import logging
import os
import re
import sys
import threading
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import limits
import phrasing
import streamlit as st
import widgets
from state import State, of_session

import galsearch

HERE = Path(__file__).parent
VIEWS, ICON = HERE / "views", HERE / "icon.svg"
PAGE_NAME = re.compile(r"[\w.-]{1,80}")
MOST_TITLE = 60  # characters of a query in the title of a browser's tab
HOW_TO_START = """
No atlas was given. Make one and open it:

```
make demo
galsearch app demo/xdf.duckdb
```

The path may also stand in the environment variable `GALSEARCH_ATLAS`.
"""


FIRST_PATH = "first"  # is in no address, but two pages of one name are refused, and the stray page may have the name


def main() -> None:
    """Show the page of the URL, or say clearly why there is nothing to show."""
    st.set_page_config(page_title="galsearch", page_icon=str(ICON), layout="wide")
    if limits.PUBLIC:
        st.set_option("client.showErrorDetails", "none")  # of what fails before or after a page is drawn
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
    every = dict(find_pages())
    offered = {name for name, page in every.items() if page.needs(state.atlas)}
    shows = {name: page.show if name in offered else partial(not_offered, page.TITLE) for name, page in every.items()}
    wished = os.environ.get("GALSEARCH_PAGE")  # of `galsearch review start`
    first = wished if wished in offered else next(name for name in every if name in offered)
    known = {
        name: st.Page(
            partial(draw, shows[name], state),
            title=page.TITLE,
            icon=page.ICON,
            url_path=FIRST_PATH if name == first else name,
            default=name == first,
        )
        for name, page in every.items()
    }
    stray = stray_page(state, shows, first)
    chosen = st.navigation([*known.values(), *([] if stray is None else [stray])], position="hidden")
    name = next((name for name, page in known.items() if page == chosen), first)
    state.restore(st.query_params, name)
    state.publish(st.query_params)
    pages = {name: page for name, page in known.items() if name in offered}
    state.pages = pages
    st.set_page_config(page_title=tab_title(state, chosen.title), page_icon=str(ICON), layout="wide")
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center", key="head"):
        widgets.title("galsearch", f"{state.atlas.manifest.title} · {len(state.atlas):,} galaxies")
        with st.container(horizontal=True, width="content", gap="xsmall", key="pages"):
            for name, page in pages.items():
                with st.container(key="here", width="content") if page == chosen else contextlib.nullcontext():
                    st.page_link(page, width="content", query_params=state.link(name))
    if state.link_problem:
        st.warning(widgets.plain(state.link_problem), icon=":material/link_off:")
    chosen.run()
    state.publish(st.query_params)


def draw(show: Callable[[State], None], state: State) -> None:
    """Draw a page; what goes wrong on purpose is said in its own words, a mistake of ours without what it was about."""
    try:
        show(state)
    except galsearch.GalsearchError as error:
        widgets.failure(error)
    except Exception as error:  # the edge of this face: a traceback would show a visitor our files
        logging.getLogger("galsearch.app").exception("a page failed")
        widgets.failure(
            f"This page failed ({type(error).__name__}), which is a mistake in galsearch; the server's log says more. "
            "Start over, or report it."
        )


def stray_page(state: State, shows: dict[str, Callable[[State], None]], first: str) -> st.Page | None:
    """Return a page for an address that is none of ours, without which Streamlit covers the app with a dialog.

    The first page has no name in its URL for Streamlit; under its name it is shown all the same.
    """
    name = urlsplit(st.context.url or "").path.rstrip("/").rpartition("/")[2]
    if PAGE_NAME.fullmatch(name) and (name == first or name not in shows):
        st.session_state.stray = name
    name = st.session_state.get("stray")
    if name is None:
        return None
    show = shows[first] if name == first else partial(no_such_page, name)
    title = import_module(f"views.{first}").TITLE if name == first else "No such page"
    return st.Page(partial(draw, show, state), title=title, url_path=name)


def not_offered(title: str, state: State) -> None:
    """Say that a page has nothing to show here."""
    st.info(f"This atlas has nothing to show on the page {title} here. The pages above have.", icon=":material/help:")


def no_such_page(name: str, state: State) -> None:
    """Say that an address leads nowhere."""
    st.info(f"There is no page {widgets.code(name)}. The pages above are all there are.", icon=":material/help:")


def tab_title(state: State, page: str) -> str:
    """Return the title of the browser's tab: what is searched, the page, the atlas."""
    asked = widgets.clean(phrasing.formula(state.query))
    short = asked if len(asked) <= MOST_TITLE else f"{asked[:MOST_TITLE]}…"
    title = widgets.clean(state.atlas.manifest.title)[:MOST_TITLE]
    return " · ".join(filter(None, [short, page, title, "galsearch"]))


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
    atlas = galsearch.open(path, visitors=limits.VISITORS, log=limits.LOG)
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
