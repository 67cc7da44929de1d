"""What models cost: US dollars per million tokens, and how many tokens a picture and an answer take.

Prices are those that were public in November 2026, and change; a user's own (`price_in`, `price_out`) come first.
Tokens of a picture, and of thinking before the answer, are means over the 2,686 captions that AION-Search published
(pictures of about 500 px), less the tokens of their prompt; for models that are not among them, those of a relative.
"""

from __future__ import annotations

from dataclasses import dataclass

BATCH_SHARE = 0.5  # of the price, for answers within a day; for the models of this table
UNKNOWN_PICTURE_TOKENS = 1500  # taken for a model that is not in the table: more than any of those


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens in and out, tokens that a picture takes, and tokens of thinking in an answer.

    `listed` says that it stands in our table, and that batches cost half.
    """

    usd_in: float
    usd_out: float
    picture_tokens: int = UNKNOWN_PICTURE_TOKENS
    thinking_tokens: int = 0
    listed: bool = False

    def cost(self, tokens_in: float, tokens_out: float, *, mode: str = "direct") -> float:
        """Return US dollars for so many tokens; `mode` is "direct" or "batch"."""
        share = BATCH_SHARE if mode == "batch" and self.listed else 1.0
        return share * (tokens_in * self.usd_in + tokens_out * self.usd_out) / 1e6


_TABLE = {  # model: dollars in, dollars out, picture tokens, thinking tokens
    "gpt-4.1": (2.0, 8.0, 770, 0),
    "gpt-4.1-mini": (0.4, 1.6, 590, 0),
    "gpt-4.1-nano": (0.1, 0.4, 900, 0),
    "gpt-4o": (2.5, 10.0, 770, 0),
    "gpt-4o-mini": (0.15, 0.6, 25500, 0),
    "gpt-5": (1.25, 10.0, 770, 1000),
    "gpt-5-mini": (0.25, 2.0, 590, 1000),
    "gpt-5-nano": (0.05, 0.4, 900, 1000),
    "o3": (2.0, 8.0, 680, 700),
    "o4-mini": (1.1, 4.4, 630, 1000),
    "gemini-2.0-flash": (0.1, 0.4, 1290, 0),
    "gemini-2.0-flash-lite": (0.075, 0.3, 1290, 0),
    "gemini-2.5-flash": (0.3, 2.5, 260, 1300),
    "gemini-2.5-pro": (1.25, 10.0, 260, 1800),
}


def known_models() -> list[str]:
    """Return the models of the table, cheapest picture first."""
    return sorted(_TABLE, key=lambda name: (_listed(name).cost(1000, 500), name))


def price_of(model: str, *, price_in: float | None = None, price_out: float | None = None) -> Price | None:
    """Return the price of a model, the user's own where both are given; None when it is not known.

    A dated name such as gpt-4.1-mini-2025-04-14 costs what the name without the date does.
    """
    name = max((known for known in _TABLE if _is_version(model, known)), key=len, default=None)
    if price_in is not None and price_out is not None:
        known = _listed(name) if name else Price(0.0, 0.0)
        return Price(price_in, price_out, known.picture_tokens, known.thinking_tokens)
    return _listed(name) if name else None


def _is_version(model: str, known: str) -> bool:
    rest = model.removeprefix(known)
    return model.startswith(known) and (not rest or (rest.startswith("-") and rest[1:2].isdigit()))


def _listed(name: str) -> Price:
    usd_in, usd_out, picture, thinking = _TABLE[name]
    return Price(usd_in, usd_out, picture, thinking, listed=True)
