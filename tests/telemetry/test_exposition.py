"""Exposition: the text that Prometheus reads."""

from __future__ import annotations

import asyncio
import subprocess

import pytest
from conftest import need_program
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gogate_py.messages import Counts
from gogate_py.telemetry.exposition import Exposition, Gauges
from gogate_py.telemetry.metrics import CATALOGUE, DURATION_BOUNDS
from gogate_py.telemetry.totals import Totals

NASTY = 'evil"\\\nhost:1'


def filled() -> Totals:
    """Totals with something in every metric."""
    totals = Totals()
    for metric in CATALOGUE.values():
        labels = tuple(f"{label}-value" for label in metric.labels)
        if metric.kind == "counter":
            totals.add(0, Counts([(metric.name, labels, 3)], [], []))
        elif metric.kind == "gauge":
            totals.add(0, Counts([], [(metric.name, labels, 2.5)], []))
        else:
            totals.add(0, Counts([], [], [(metric.name, labels, [1, 2, *[0] * (len(DURATION_BOUNDS) - 2), 4], 99.5)]))
    totals.add(1, Counts([("gogate_requests_total", ("pool-value", NASTY, "success"), 1)], [], []))
    return totals


def render(totals: Totals, accept: str = "", gauges: Gauges | None = None) -> tuple[str, str]:
    """The exposition's (text, content type)."""
    exposition = Exposition(totals, lambda: gauges or {})
    try:
        body, content_type = asyncio.run(exposition.render(accept))
    finally:
        exposition.close()
    return body.decode(), content_type


@pytest.mark.parametrize("totals", [Totals(), filled()], ids=["empty", "filled"])
def test_promtool_accepts_the_output(totals: Totals) -> None:
    """``promtool check metrics`` finds nothing to say, before the first event and after many."""
    text, _ = render(totals)
    result = subprocess.run(
        [need_program("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_every_metric_of_the_catalogue_is_there() -> None:
    """Each metric has its type and help, and those without labels their series from the start."""
    families = {family.name: family for family in parse_text(render(Totals())[0])}
    for name, metric in CATALOGUE.items():
        family = families[name.removesuffix("_total") if metric.kind == "counter" else name]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        assert bool(family.samples) == (not metric.labels)


def test_values_labels_and_buckets_arrive() -> None:
    """Counters and gauges carry their labels, label values are escaped, buckets are cumulative."""
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(render(filled())[0])
        for sample in family.samples
    }
    of_backend = (("backend", NASTY), ("pool", "pool-value"), ("status", "success"))
    assert samples["gogate_requests_total", of_backend] == 1
    assert samples["gogate_workers", ()] == 2.5
    name = "gogate_request_duration_seconds"
    assert samples[f"{name}_bucket", (("le", "0.001"),)] == 1
    assert samples[f"{name}_bucket", (("le", "0.005"),)] == 3
    assert samples[f"{name}_bucket", (("le", "10.0"),)] == 3
    assert samples[f"{name}_bucket", (("le", "+Inf"),)] == 7
    assert samples[f"{name}_count", ()] == 7
    assert samples[f"{name}_sum", ()] == 99.5


def test_computed_gauges_come_before_reported_ones() -> None:
    """What the control plane computes at a scrape is shown under the catalogue's name."""
    text, _ = render(filled(), gauges={"gogate_workers": {(): 4}, "gogate_backend_healthy": {("p", "b:1"): 1}})
    assert "gogate_workers 4.0" in text.splitlines()
    assert 'gogate_backend_healthy{backend="b:1",pool="p"} 1.0' in text.splitlines()


def test_openmetrics_on_request() -> None:
    """A scraper that accepts OpenMetrics gets it; everybody else the classic text."""
    text, content_type = render(filled(), "application/openmetrics-text; version=1.0.0, text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")
    families = parse_openmetrics(text)  # type: ignore[no-untyped-call]  # prometheus_client does not type its parser
    assert {family.name for family in families} >= {"gogate_requests", "gogate_workers"}
    assert render(filled(), "*/*")[1].startswith("text/plain; version=0.0.4")


def test_many_series_are_rendered_beside_the_loop() -> None:
    """Thousands of series give the same text, made in a thread while the loop runs on."""

    async def scrape() -> tuple[str, int]:
        totals = Totals()
        for number in range(3000):
            totals.count("gogate_health_transitions_total", ("p", f"b{number}", "up"))
        exposition = Exposition(totals, dict)
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        body, _ = await exposition.render("")
        ticking.cancel()
        exposition.close()
        return body.decode(), ticks

    text, ticks = asyncio.run(scrape())
    assert text.count("gogate_health_transitions_total{") == 3000
    assert ticks > 1
