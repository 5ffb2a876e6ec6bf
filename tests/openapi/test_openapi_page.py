"""The page of the documents in a real browser (headless Chromium)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import need_program
from doubles.browser import browser
from doubles.configs import ANY, gateway_config
from doubles.gateway import Gateway
from test_openapi_merge import USERS

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=alert(1)>"


def test_both_documents_are_shown() -> None:
    """Every operation, its parts when it is opened, a filter; what a backend's document says is text. No error."""
    users = json.loads(json.dumps(USERS))
    users["paths"]["/users/{id}"]["get"]["summary"] = HOSTILE
    config = gateway_config(
        {"httpListenAddr": ANY, "health": {"enabled": False}}, pools={"p": {"backends": ["127.0.0.1:9"]}},
        routes=[{"name": "api", "pool": "p", "openapi": "api.json"}])
    program = need_program("chromium")

    def write(folder: Path) -> None:
        (folder / "api.json").write_text(json.dumps(users))

    with Gateway(config, prepare=write) as gateway, browser(program) as page:
        page.size(360, 700)
        page.open(f"http://{gateway.admin}/docs")
        page.until("document.querySelectorAll('details').length > 30")
        assert page.evaluate("document.getElementById('title').textContent").startswith("gogate admin API")
        page.evaluate("document.getElementById('get_stats').open = true")
        page.until("document.querySelector('#get_stats pre')?.textContent.includes('latency_ms')")
        page.evaluate("document.getElementById('filter').value = 'put backends weight'")
        page.evaluate("document.getElementById('filter').dispatchEvent(new Event('input'))")
        page.until("document.querySelectorAll('details:not([hidden])').length === 1")
        page.evaluate("document.getElementById('filter').value = ''")
        page.evaluate("location.hash = '#routes'")
        page.until("document.querySelectorAll('details').length === 3")
        assert HOSTILE in page.evaluate("document.getElementById('document').textContent")
        assert page.evaluate("document.querySelectorAll('main img').length") == 0
        page.evaluate("document.getElementById('api.getUser').open = true")
        page.until("document.getElementById('api.getUser').textContent.includes('\"route\": \"api\"')")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.errors == []
        assert {one.split("/")[2] for one in page.asked} == {gateway.admin}
