"""For the tests of L4 relays: each runs once for every way that bytes may move (a plugin of tests/conftest.py)."""

from __future__ import annotations

import pytest

from gogate_py.dataplane import splice, tcp_side

#: When an L4 direction goes over to splice(2) and when it comes back: (BULK, LARGE_READ, PATIENCE, SMALL_READ).
WAYS = {
    "relayed": None,  # as users have it: splice begins after a mebibyte
    "spliced": (0, 0, 1 << 30, 0),  # from the first read to the end
    "both": (0, 0, 1, 1 << 30),  # each direction changes with every read
}


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How an L4 relay moves its bytes: a test that uses it runs once for each of WAYS."""
    name = str(request.param)
    if (limits := WAYS[name]) is not None:
        monkeypatch.setattr(tcp_side, "BULK", limits[0])
        monkeypatch.setattr(tcp_side, "LARGE_READ", limits[1])
        monkeypatch.setattr(splice, "PATIENCE", limits[2])
        monkeypatch.setattr(splice, "SMALL_READ", limits[3])
    return name
