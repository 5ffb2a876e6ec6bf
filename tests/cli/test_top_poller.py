"""How gogate top asks: what each look is compared with, and what happens when there is no answer."""

from __future__ import annotations

from typing import Any

from doubles.gateway import wait_for
from top_looks import backend, look

from gogate_py.cli.lease import AdminClient, Unreachable
from gogate_py.cli.top.figures import Figures
from gogate_py.cli.top.figures import look as ask
from gogate_py.cli.top.poller import Poller
from gogate_py.cli.top.state import Change


class Counting(AdminClient):
    """An admin API on which a hundred requests come between any two looks."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9", "")
        self.looks = 0
        self.draining = False
        self.silent = False
        self.posted: list[str] = []

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        if self.silent:
            raise Unreachable("nobody is there")
        if method == "POST":
            self.posted.append(path)
            self.draining = True
            return {}
        if path == "/backends":
            return {"backends": [backend("a:1", draining=self.draining)]}
        self.looks += 1
        return look(0, routes={"web": {"by_code": {"200": 100 * self.looks}}}).stats


def grown(figures: Figures) -> int:
    """How many requests the figures are of."""
    return round((figures.totals.requests or 0) * figures.seconds)


def started(interval: float) -> tuple[Counting, Poller]:
    """A poller that has begun."""
    client = Counting()
    poller = Poller(client, ask(client), interval)
    poller.start()
    return client, poller


def test_each_look_is_compared_with_the_one_before() -> None:
    """Figures are of this moment, not of all the time since the start; the first have no rates."""
    client = Counting()
    poller = Poller(client, ask(client), 0.2)
    assert poller.figures.totals.requests is None
    poller.start()
    seen: list[Figures] = []

    def five() -> bool:
        if poller.figures.totals.requests is not None and poller.figures not in seen:
            seen.append(poller.figures)
        return len(seen) == 5

    wait_for(five, 20, "five looks")
    assert {round(grown(one), -1) for one in seen} == {100}


def test_a_change_is_looked_at_at_once() -> None:
    """Nobody waits for the next look, a minute away, to see what a drain did."""
    client, poller = started(60.0)
    poller.change(Change("drain", poller.figures.backends[0]))
    wait_for(lambda: poller.said and poller.figures.backends[0].draining, 20, "the drained backend")
    assert client.posted == ["/backends/a%3A1/drain?pool=web"]
    assert poller.said == "drained a:1 in pool web"


def test_no_answer() -> None:
    """The last figures stay, with the reason; they go on when there are answers again."""
    client, poller = started(0.2)
    wait_for(lambda: poller.figures.totals.requests is not None, 20, "figures")
    client.silent = True
    wait_for(lambda: poller.trouble, 20, "the trouble")
    assert poller.trouble == "the admin API at http://127.0.0.1:9 does not answer: nobody is there; trying again"
    kept = poller.figures
    client.silent = False
    wait_for(lambda: not poller.trouble and poller.figures is not kept, 20, "new figures")
    assert kept.totals.requests is not None
