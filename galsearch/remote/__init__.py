"""Services outside: the only part of galsearch that reaches the network, and only when a user asked for that very call.

`llm.endpoint` speaks to vision models behind an OpenAI-compatible endpoint, `llm.jobs` asks many questions under a
limit of cost and keeps every answer on disk as it arrives, `llm.prices` knows what models cost.
"""

from galsearch.remote.llm.endpoint import (
    FAILED,
    MALFORMED,
    OK,
    REFUSED,
    Endpoint,
    Reply,
    Request,
    Service,
    ToolEndpoint,
    picture_part,
)
from galsearch.remote.llm.jobs import Journal, Outcome, ask_all, estimate, journal_path, ledger_line, tokens_of
from galsearch.remote.llm.prices import Price, known_models, price_of

__all__ = [
    "FAILED",
    "MALFORMED",
    "OK",
    "REFUSED",
    "Endpoint",
    "Journal",
    "Outcome",
    "Price",
    "Reply",
    "Request",
    "Service",
    "ToolEndpoint",
    "ask_all",
    "estimate",
    "journal_path",
    "known_models",
    "ledger_line",
    "picture_part",
    "price_of",
    "tokens_of",
]
