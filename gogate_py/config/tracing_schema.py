"""Traces in the configuration. A part of schema.py."""

# ruff: noqa: RUF009  setting() returns an attrs field, which is how attrs takes defaults

from __future__ import annotations

from typing import ClassVar
from urllib.parse import urlsplit

import attrs

from gogate_py.config.names import FieldName
from gogate_py.config.settings import TextMap, setting
from gogate_py.config.traffic_values import Secret, ServiceUrl
from gogate_py.config.values import Boolean, Choice, Fraction, Text


@attrs.frozen
class Tracing:
    """Traces of OpenTelemetry, sent to a collector (OTLP over HTTP). Needs the extra: pip install 'gogate[otel]'."""

    HINTS: ClassVar = {"url": "endpoint", "collector": "endpoint", "otlp": "endpoint", "sampleRatio": "sample",
                       "samplingRatio": "sample", "ratio": "sample", "sampler": "sample", "name": "serviceName",
                       "trust": "parents", "propagation": "parents"}

    enabled: bool = setting(Boolean(), "needs pip install 'gogate[otel]'", default=False)
    endpoint: str = setting(
        ServiceUrl(), "of a collector; without a path: /v1/traces", default="http://localhost:4318/v1/traces")
    sample: float = setting(
        Fraction(), "share of the requests that are traced; one with a traceparent: as its caller has it", default=0.1)
    parents: str = setting(
        Choice(("any", "trusted"), aliases={"all": "any", "trustedProxies": "trusted"}),
        "whose traceparent counts: any client's, or that of trustedProxies; another one is replaced", default="any")
    service_name: str = setting(
        Text(r"[^\x00-\x1f\x7f]{1,128}", "a name without control characters"), "", default="gogate")
    headers: dict[str, str] = setting(
        TextMap(FieldName(), Secret(), fold=True), "sent with every export",
        example={"Authorization": "Bearer ${OTLP_TOKEN:-}"})

    @property
    def url(self) -> str:
        """Where spans are sent."""
        return self.endpoint.rstrip("/") + "/v1/traces" if urlsplit(self.endpoint).path in ("", "/") else self.endpoint
