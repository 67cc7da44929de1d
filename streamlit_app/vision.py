"""What it takes to ask a vision model: its name and address, a key held in memory, a limit, prices, and consent."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import streamlit as st
import widgets
from state import State

PRICES = {"price_in": "US dollars per million tokens sent", "price_out": "US dollars per million tokens received"}


def form(state: State, name: str, estimate: Callable[..., pa.Table], counted: str) -> dict[str, Any] | None:
    """Draw the form and what it would cost; return the settings once somebody agreed to them, else None.

    `name` begins the keys of its widgets. `estimate(model=, price_in=, price_out=)` gives a row with `usd` and the
    column `counted`, which is how many pictures are sent. The key is not among the settings, see `held`.
    """
    model, address = _where(state, name)
    most, prices = _limits(state, name)
    if not model:
        st.caption("Name a model to see what it would cost.")
        return None
    row = _told(estimate(model=model, **prices))
    unknown = row["usd"] is None
    if unknown and most:
        st.warning("The price of this model is not known, so no limit can be held: give both prices, or 0 as limit.")
    cost = "at a cost that is not known" if unknown else f"for about {row['usd']:.2f} US dollars"
    agreed = st.checkbox(
        f"Send {row[counted]:,} images to {widgets.code(address) if address else 'OpenAI'}, {cost}",
        key=f"{name}_agreed_{model}_{address}_{row[counted]}",  # another question needs another consent
        on_change=state.acted,
    )
    keyed = bool(st.session_state[f"{name}_key"]) or bool(address)
    if agreed and not keyed:
        st.caption("OpenAI's own address needs a key.")
    if not (agreed and keyed) or (unknown and most):
        return None
    return {"model": model, "base_url": address or None, "max_cost": most or None, **prices}


def _where(state: State, name: str) -> tuple[str, str]:
    """Draw whom to ask; return the model and the address."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        model = st.text_input("Model", "gpt-4.1-mini", key=f"{name}_model", width=220, on_change=state.acted)
        address = st.text_input(
            "Address, unless OpenAI's",
            key=f"{name}_address",
            placeholder="http://localhost:11434/v1",
            width=300,
            on_change=state.acted,
        )
        st.text_input(
            "Key",
            type="password",
            key=f"{name}_key",
            width=220,
            autocomplete="off",
            on_change=state.acted,
            help="Held in the memory of this session while it lasts, and written nowhere. A local server needs none.",
        )
    return model.strip(), address.strip()


def _limits(state: State, name: str) -> tuple[float, dict[str, float | None]]:
    """Draw what may be spent, and what tokens cost where that is not known."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        most = st.number_input(
            "Stop before spending more than [USD]",
            0.0,
            value=1.0,
            step=0.5,
            key=f"{name}_most",
            width=260,
            on_change=state.acted,
            help="A hard limit. 0 is none, for a server of your own.",
        )
        prices = {
            price: st.number_input(
                label, 0.0, value=None, key=f"{name}_{price}", width=260, on_change=state.acted, placeholder="as known"
            )
            for price, label in PRICES.items()
        }
    return most, prices


def _told(found: pa.Table) -> dict[str, Any]:
    """Draw what it would cost."""
    st.dataframe(
        found,
        hide_index=True,
        height="content",
        alt="What it would cost, an estimate within a factor of two",
        column_config={
            "usd": st.column_config.NumberColumn("cost [USD]", format="%.4f"),
            "usd_batch": st.column_config.NumberColumn("within a day [USD]", format="%.4f"),
        },
    )
    st.caption("An estimate, within a factor of two. Nothing is sent before you start.")
    return found.to_pylist()[0]


@contextmanager
def held(key: str) -> Iterator[str]:
    """Hold a key in a variable of this process under a name that nobody guesses, only as long as it is needed."""
    variable = f"GALSEARCH_{secrets.token_hex(8).upper()}"
    os.environ[variable] = key
    try:
        yield variable
    finally:
        os.environ.pop(variable, None)
