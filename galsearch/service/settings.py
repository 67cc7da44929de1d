"""What the service allows: limits for strangers and for a machine of one's own, and what the command line sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from galsearch.quotas import Quota
from galsearch.workers import Limits

LONGEST_SQL = 300_000  # characters of a statement; one that ADQL becomes is longer than what was written

STRANGERS = Limits(text_characters=LONGEST_SQL, processes=2, spare=1)
OWNER = Limits(
    seconds=60,
    cpu_seconds=120,
    contested_seconds=60,
    memory_bytes=4 << 30,
    text_characters=LONGEST_SQL,
    result_bytes=256 << 20,
    processes=2,
    spare=1,
)
MANY = 1_000_000  # queries a minute: no bound


@dataclass(frozen=True)
class Settings:
    """How one service runs.

    `public` makes bounds tight. `url` is the address that clients know it by, where a proxy stands in front, `proxies`
    how many write X-Forwarded-For, `origins` the web pages that may read answers ("*": all). `jobs` is the folder that
    keeps queries that run aside from one start to the next. `verdicts` is a file of verdicts, which who knows the
    `token` may read and add to. `log_queries` puts what was asked into the access log.
    """

    public: bool = False
    url: str | None = None
    proxies: int = 0
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ("*",)
    jobs: Path | None = None
    verdicts: Path | None = None
    token: str | None = field(default=None, repr=False)
    log_queries: bool = False

    @property
    def limits(self) -> Limits:
        """What a statement may take."""
        return STRANGERS if self.public else OWNER

    @property
    def quota(self) -> Quota:
        """How much a client may ask; who comes from one address is one client."""
        return Quota(per_minute=300) if self.public else Quota(per_minute=MANY, address_per_minute=MANY)

    @property
    def most_k(self) -> int:
        """Most results of a search."""
        return 1_000 if self.public else 10_000

    @property
    def rows(self) -> int:
        """Rows of an answer that does not say how many it wants."""
        return 10_000 if self.public else 100_000

    @property
    def most_rows(self) -> int:
        """Most rows of an answer."""
        return 100_000 if self.public else 1_000_000

    @property
    def upload_bytes(self) -> int:
        """Most bytes of what is sent."""
        return (20 if self.public else 200) * 1_000_000
