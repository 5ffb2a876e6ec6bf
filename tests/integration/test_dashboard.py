"""The dashboard in a real browser (headless Chromium), before a gateway of two workers with traffic."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from conftest import need_program
from doubles.browser import Page, browser
from doubles.configs import ANY, gateway_config
from doubles.gateway import Gateway, wait_for
from doubles.http_backend import HttpBackend

POOL = {"pools": {"web": {}}, "routes": [{"name": "web", "pool": "web"}]}
TOKEN = "a-token-of-the-operator"
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def program() -> str:
    return need_program("chromium")


@contextmanager
def traffic(gateway: Gateway, path: str = "/") -> Iterator[None]:
    """Requests all the time."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            gateway.get(path)
            over.wait(0.01)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        yield
    finally:
        over.set()
        asker.join()


def row(page: Page, backend: str, column: int) -> str:
    """An expression for a cell of the table of backends."""
    return (f"[...document.querySelectorAll('#panel tbody tr')].find(r => r.textContent.includes('{backend}'))"
            f"?.cells[{column}].textContent")


def test_it_follows_what_happens_and_changes_it(program: str) -> None:
    """Loads from the gateway alone, updates while traffic flows, drains a backend by keyboard, tells of it."""
    with HttpBackend("a") as a, HttpBackend("b") as b:
        config = gateway_config(
            {"httpListenAddr": ANY, "health": {"enabled": False}},
            pools={"one": {"backends": [a.address]}, "two": {"backends": [b.address]}},
            routes=[{"name": "split", "split": [{"pool": "one", "weight": 70}, {"pool": "two", "weight": 30}]}])
        with Gateway(config) as gateway, browser(program) as page, traffic(gateway):
            page.size(1300, 1000)
            page.open(f"http://{gateway.admin}/")
            page.until("Number(document.getElementById('tile-requests').textContent) > 1")
            page.until(f"Number({row(page, a.address, 5)}) > 0")
            assert page.evaluate("document.getElementById('ready').textContent") == "ready"
            assert page.evaluate("document.getElementById('link').textContent") == "live"
            page.until("!!document.querySelector('#chart-rate canvas')")
            labels = page.until(
                "[...document.querySelectorAll('.edges text')].map(t => t.textContent).filter(t => t.includes('/s'))"
                ".length >= 4")
            assert labels

            # by keyboard: the drain button of the backend, then Enter
            page.evaluate(f"document.querySelector('[aria-label=\"drain {a.address} of one\"]').focus()")
            page.press("Enter", "\r")
            page.until(f"{row(page, a.address, 0)} === 'draining'")
            wait_for(lambda: [one for one in gateway.admin_json("GET", "/backends")["backends"] if one["draining"]])
            # the focus is where it was: on what takes the drain back
            page.until(f"document.activeElement.getAttribute('aria-label') === 'undrain {a.address} of one'")
            page.press("Enter", "\r")
            page.until(f"{row(page, a.address, 0)} === 'up'")

            # weights of the split
            page.evaluate("document.getElementById('tab-routes').click()")
            page.until("document.querySelectorAll('#panel input[type=number]').length === 2")
            page.evaluate(
                "(() => { const i = document.querySelector('#panel input'); i.value = 10;"
                " i.dispatchEvent(new Event('change')); })()")
            wait_for(lambda: gateway.admin_json("GET", "/routes/split")["split"][0]["weight"] == 10)
            page.until("!!document.querySelector('[aria-label=\"configured weight of one in split\"]')")

            page.evaluate("document.getElementById('tab-happened').click()")
            page.until("document.getElementById('panel').textContent.includes('backend draining')")
            page.evaluate("document.getElementById('tab-reloads').click()")
            page.until("document.getElementById('panel').textContent.includes('start')")

            assert page.errors == []
            assert {one.split("/")[2] for one in page.asked} == {gateway.admin}


def test_names_are_never_markup(program: str) -> None:
    """What registers itself chooses its id and tags: they are shown as text."""
    with Gateway(gateway_config({"httpListenAddr": ANY, "health": {"enabled": False}}, **POOL)) as gateway:
        gateway.admin_json("POST", "/v1/services", {
            "name": "web", "id": "x1", "address": "127.0.0.1:9", "ttl": "60s", "tags": [HOSTILE.replace(" ", "/")]})
        with browser(program) as page:
            page.open(f"http://{gateway.admin}/")
            page.until("document.querySelectorAll('#panel tbody tr').length === 1")
            page.evaluate("document.getElementById('tab-services').click()")
            page.until("document.getElementById('panel').textContent.includes('<img')")
            assert page.evaluate("document.querySelectorAll('#panel img').length") == 0
            assert page.errors == []


def test_a_thousand_backends_on_a_phone(program: str) -> None:
    """The table shows a page of them and the picture the first few; nothing is wider than the screen."""
    addresses = [f"10.{n // 250}.{n % 250}.1:80" for n in range(1000)]
    config = gateway_config(
        {"httpListenAddr": ANY, "health": {"enabled": False}}, pools={"web": {"backends": addresses}},
        routes=[{"name": "web", "pool": "web"}])
    with Gateway(config) as gateway, browser(program) as page:
        page.size(390, 800, dark=True)
        page.open(f"http://{gateway.admin}/")
        page.until("document.getElementById('panel').textContent.includes('50 of 1000')")
        assert page.evaluate("document.querySelectorAll('#panel tbody tr').length") == 50
        assert page.evaluate("document.getElementById('column-backends').textContent.includes('and 990 more')")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.evaluate("document.getElementById('filter').focus()")
        page.type("10.3.249.1")
        page.until("document.querySelectorAll('#panel tbody tr').length === 1")
        assert page.errors == []


def test_a_change_from_elsewhere_asks_for_the_token(program: str) -> None:
    """Through something that forwards, changes need the token: the page asks for it, and keeps it for the next one."""
    with HttpBackend("a") as a:
        config = gateway_config(
            {"httpListenAddr": ANY, "backends": [a.address], "health": {"enabled": False},
             "admin": {"listenAddr": ANY, "token": TOKEN}})
        with Gateway(config) as gateway, browser(program) as page:
            page.command("Network.setExtraHTTPHeaders", headers={"X-Forwarded-For": "203.0.113.9"})
            page.open(f"http://{gateway.admin}/")
            page.until("!!document.querySelector('#panel tbody button')")
            page.evaluate("document.querySelector('#panel tbody button').click()")
            page.until("document.getElementById('token').open")
            page.type(TOKEN)
            page.press("Enter", "\r")
            page.until(f"{row(page, a.address, 0)} === 'draining'")
            page.evaluate("document.querySelector('#panel tbody button').click()")
            page.until(f"{row(page, a.address, 0)} === 'up'")
            assert not page.evaluate("document.getElementById('token').open")
            assert page.evaluate("localStorage.length") == 0
            # the browser itself notes the 401 that made the page ask
            assert [one for one in page.errors if "401" not in one] == []
            assert TOKEN not in json.dumps(page.asked)


def test_it_comes_back_with_the_gateway(program: str) -> None:
    """A gateway that goes is said to be gone; when it is back, so is the page."""
    config = gateway_config({"httpListenAddr": ANY, "health": {"enabled": False}}, **POOL)
    with Gateway(config) as gateway, browser(program) as page:
        host, port = gateway.admin.split(":")
        page.open(f"http://{gateway.admin}/")
        page.until("document.getElementById('link').textContent === 'live'")
        gateway.stop()
        page.until("document.getElementById('link').className.includes('bad')")
        again = gateway_config({"httpListenAddr": ANY, "admin": {"listenAddr": f"{host}:{port}"}}, **POOL)
        with Gateway(again):
            page.until("document.getElementById('link').textContent === 'live'", 30)
