"""How much one client may ask and who is next: counted by action, by session and by address, in separate lines."""

from __future__ import annotations

import threading
import time

import pytest

from galsearch import quotas, workers
from galsearch.errors import BusyError, GalsearchError
from galsearch.quotas import Client, Quota, Turns, address_of


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = [1000.0]
    monkeypatch.setattr(quotas.time, "monotonic", lambda: now[0])
    return now


def ask(turns: Turns, client: Client, *, line: str = "search") -> None:
    with turns.turn(client, line=line):
        pass


def test_the_steps_of_a_slider_are_one_action(clock):
    turns, visitor = Turns(Quota(per_minute=2)), Client("a")
    for _ in range(2):
        for _ in range(9):
            ask(turns, visitor)
            clock[0] += 0.4
        clock[0] += 10
    with pytest.raises(BusyError, match="this session asked 2 times within a minute"):
        ask(turns, visitor)
    clock[0] += 60
    ask(turns, visitor)


def test_an_action_does_not_go_on_for_ever(clock):
    turns, visitor = Turns(Quota(per_minute=3)), Client("a")
    with pytest.raises(BusyError):
        for _ in range(100):
            ask(turns, visitor)
            clock[0] += 0.5
    assert 3 * 5 <= clock[0] - 1000 <= 3 * 7


def test_an_action_is_not_any_number_of_queries(clock):
    turns = Turns(Quota(per_minute=2, action_queries=10))
    with pytest.raises(BusyError):
        for _ in range(21):
            ask(turns, Client("a"))


def test_sessions_of_one_address_count_together_and_others_are_not_touched(clock):
    turns = Turns(Quota(address_per_minute=5, action_seconds=0.1))
    for number in range(5):
        ask(turns, Client(f"session {number}", "192.0.2.1"))
        clock[0] += 1
    with pytest.raises(BusyError, match="this address"):
        ask(turns, Client("another", "192.0.2.1"))
    ask(turns, Client("another", "192.0.2.2"))
    ask(turns, Client("nobody knows from where"))


def test_a_refused_client_is_served_again_later(clock):
    turns = Turns(Quota(per_minute=1))
    ask(turns, Client("a"))
    clock[0] += 30
    with pytest.raises(BusyError):
        ask(turns, Client("a"))
    clock[0] += 30
    ask(turns, Client("a"))


def test_a_turn_within_a_turn_does_not_wait():
    turns = Turns(Quota(lines={"search": 1, "sql": 1}, wait_seconds=0.05))
    with turns.turn(Client("a")), turns.turn(Client("a"), line="sql"), turns.turn(Client("a")):
        pass
    ask(turns, Client("a"))


def hold(turns: Turns, client: Client, line: str, done: threading.Event, started: list) -> threading.Thread:
    """Hold a turn in a thread until `done`."""

    def work() -> None:
        with turns.turn(client, line=line):
            started.append((client, workers.client.get()))
            done.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def wait_until(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_full_line_for_sql_does_not_hold_up_searches():
    turns, done, started = Turns(Quota(lines={"search": 1, "sql": 1}, wait_seconds=0.1)), threading.Event(), []
    thread = hold(turns, Client("a"), "sql", done, started)
    wait_until(lambda: started)
    ask(turns, Client("b"), line="search")
    with pytest.raises(BusyError, match=r"waited 0\.1 s in line"):
        ask(turns, Client("b"), line="sql")
    done.set()
    thread.join()
    assert started[0][1] == "a"  # the worker processes know for whom they work


def test_of_those_who_wait_the_one_who_has_least_goes_first():
    turns, started = Turns(Quota(lines={"search": 2}, wait_seconds=10)), []
    first, second = threading.Event(), threading.Event()
    busy, other = Client("busy", "192.0.2.1"), Client("other", "192.0.2.9")
    threads = [hold(turns, busy, "search", first, started), hold(turns, busy, "search", second, started)]
    wait_until(lambda: len(started) == 2)
    again = threading.Event()
    threads.append(hold(turns, Client("busy 2", "192.0.2.1"), "search", again, started))
    wait_until(lambda: len(turns._waiting["search"]) == 1)
    threads.append(hold(turns, other, "search", again, started))
    wait_until(lambda: len(turns._waiting["search"]) == 2)
    first.set()
    wait_until(lambda: len(started) == 3)
    assert started[2][0] == other
    second.set()
    again.set()
    for thread in threads:
        thread.join()
    assert len(started) == 4


def test_there_is_no_other_line():
    with pytest.raises(GalsearchError, match="no line 'jobs'"), Turns().turn(Client("a"), line="jobs"):
        pass


@pytest.mark.parametrize(
    ("remote", "forwarded", "proxies", "address"),
    [
        ("8.8.8.8", None, 0, "8.8.8.8"),
        ("8.8.8.8", "1.1.1.1", 0, "8.8.8.8"),  # anybody can write the header
        ("10.0.0.3", "1.1.1.1", 0, None),  # a proxy of one's own, of which nothing was said
        ("10.0.0.3", "1.1.1.1, 8.8.4.4", 1, "8.8.4.4"),  # what the proxy saw, not what the client wrote
        ("10.0.0.3", "9.9.9.9, 1.1.1.1, 10.0.0.4", 2, "1.1.1.1"),
        ("8.8.8.8", "1.1.1.1", 2, "8.8.8.8"),  # it did not come through both
        ("127.0.0.1", None, 0, None),
        (None, None, 0, None),
        ("2001:4860:4860::8888", None, 0, "2001:4860:4860::/64"),
        ("10.0.0.3", "not an address", 1, None),
    ],
)
def test_an_address_is_that_of_the_connection_unless_a_known_proxy_says_more(remote, forwarded, proxies, address):
    assert address_of(remote, forwarded, proxies=proxies) == address
