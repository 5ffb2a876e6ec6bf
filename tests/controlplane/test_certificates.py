"""Certificates in use: what the metrics, the admin API and the log tell of them, and when."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from doubles.certificates import write_pair

from gogate_py.clock import wall
from gogate_py.config.certificates import DAY
from gogate_py.config.listeners import data_listeners
from gogate_py.config.loader import load_text
from gogate_py.config.schema import Config
from gogate_py.controlplane.certificates import CertificateWatch, expiry_gauge, in_use, listener_object
from gogate_py.telemetry.metrics import CATALOGUE

TEXT = """\
server:
  httpListenAddr: ":443"
  backends: ["z:1"]
  tls: {certificates: [{certFile: a.crt, keyFile: a.key}], redirectHTTP: ":80"}
pools:
  own: {backends: ["https://y:1"], tls: {certFile: b.crt, keyFile: b.key}}
  unused: {backends: ["y:1"]}
listeners:
  - {name: db, listenAddr: ":5432", type: tcp, tls: {certificates: [{certFile: a.crt, keyFile: a.key}]}}
routes:
  - {name: db, type: tcp, listener: db, pool: own}
"""
SOON = "a certificate expires soon"


def load(folder: Path) -> Config:
    return load_text(TEXT, str(folder / "c.yaml"), {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pair(tmp_path, "a", "a.test", "*.a.test", days=90)
    write_pair(tmp_path, "b", "client.test", days=60)
    return tmp_path


class Clock:
    """Days that pass on both clocks."""

    def __init__(self) -> None:
        self.days = 0.0

    def wall(self) -> float:
        return wall() + self.days * DAY

    def ticks(self) -> float:
        return 1000.0 + self.days * DAY


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Message and file of what was logged since the last call."""
    found = [(record.message, vars(record)["certificate"]) for record in caplog.records if record.name == "gogate.tls"]
    caplog.clear()
    return found


def test_every_certificate_has_its_gauge(folder: Path) -> None:
    """By listener, or by pool for what is shown to backends; the value is the end in Unix time."""
    certificates = in_use(load(folder))
    gauge = expiry_gauge(certificates)
    assert set(gauge) == {
        ("db", "a.test", "a.crt"), ("http:default", "a.test", "a.crt"), ("pool/own", "client.test", "b.crt")}
    assert gauge["db", "a.test", "a.crt"] == certificates[0].about.not_after
    assert abs(gauge["db", "a.test", "a.crt"] - wall() - 90 * DAY) < 600
    assert CATALOGUE["gogate_tls_certificate_expiry_seconds"].labels == ("listener", "name", "file")


def test_listeners_as_they_are_shown(folder: Path) -> None:
    """Kind, address and certificates; no key, no content."""
    shown = {one.id: listener_object(one) for one in data_listeners(load(folder))}
    assert shown["redirect::80"] == {"name": "redirect::80", "kind": "redirect", "address": ":80", "https_port": 443}
    tls: dict[str, Any] = shown["http:default"]["tls"]
    (certificate,) = tls["certificates"]
    assert (tls["min_version"], tls["client_auth"]) == ("1.2", "none")
    assert certificate["names"] == ("a.test", "*.a.test")
    assert (certificate["key"], certificate["state"]) == ("ECDSA", "valid")
    assert "BEGIN" not in repr(shown)


def test_what_ends_is_said_once_a_day(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """From 14 days before the end on; each file once, however many listeners show it; then that it is over."""
    clock = Clock()
    watch = CertificateWatch(load(folder), now=clock.wall, ticks=clock.ticks)
    days: list[list[tuple[str, str]]] = []
    for clock.days in (0, 45, 46.5, 46.6, 47, 47.6, 60.5, 90.5):
        watch.look()
        days.append(said(caplog))
    assert days == [
        [], [], [(SOON, "b.crt")], [], [], [(SOON, "b.crt")], [("a certificate has expired", "b.crt")],
        [("a certificate has expired", "a.crt"), ("a certificate has expired", "b.crt")]]


def test_a_renewed_certificate_is_said_and_ends_the_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With its new end; a reload that changes something else says nothing."""
    caplog.set_level(logging.INFO)
    write_pair(folder, "a", "a.test", days=3)
    watch = CertificateWatch(load(folder))
    watch.look()
    assert said(caplog) == [(SOON, "a.crt")]
    watch.serve(load(folder))
    assert said(caplog) == []
    write_pair(folder, "a", "a.test", days=80)
    watch.serve(load(folder))
    (first, *_) = [record for record in caplog.records if record.name == "gogate.tls"]
    assert vars(first)["names"] == ["a.test"]
    assert vars(first)["not_after"] > vars(first)["not_after_before"]
    assert said(caplog) == [("certificate changed", "a.crt")] * 2  # of each listener
    write_pair(folder, "a", "a.test", days=3)
    watch.serve(load(folder))
    assert said(caplog)[-1] == (SOON, "a.crt")


def test_a_key_that_everybody_can_read_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is served: in many containers secrets are mounted so."""
    os.chmod(folder / "a.key", 0o644)
    CertificateWatch(load(folder)).look()
    assert said(caplog) == [("everybody on this machine can read the key of a certificate", "a.crt")]


def test_one_that_begins_later_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A clock that is wrong looks like this, too."""
    clock = Clock()
    clock.days = -120
    CertificateWatch(load(folder), now=clock.wall, ticks=clock.ticks).look()
    assert said(caplog) == [("a certificate is not valid yet", "a.crt"), ("a certificate is not valid yet", "b.crt")]
