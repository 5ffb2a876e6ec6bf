"""Codes of findings: what each means and how much it matters. docs/check.md lists them; a test holds the two together.

    error      gogate does not start with it
    warning    it starts, and most likely does not do what was meant; gogate check --strict fails
    note       worth knowing

A code keeps its meaning for good; one that is not used any more is not used again.
"""

from __future__ import annotations

from typing import Final

ERROR: Final = "error"
WARNING: Final = "warning"
NOTE: Final = "note"

#: Code → (severity, what it is about).
CODES: Final[dict[str, tuple[str, str]]] = {
    "GG001": (ERROR, "the file cannot be read, or is not YAML"),
    "GG002": (ERROR, "an unknown key, or one twice"),
    "GG003": (ERROR, "a value that is not possible"),
    "GG004": (ERROR, "values that do not go together, or a name that leads nowhere"),
    "GG005": (ERROR, "routes of which chance would pick one, or one that is never reached"),
    "GG006": (NOTE, "an environment variable that overrides nothing"),
    "GG010": (WARNING, "a pool that no route uses"),
    "GG011": (NOTE, "a pool that is empty until services register"),
    "GG012": (NOTE, "a split whose canary is its largest arm"),
    "GG013": (NOTE, "a weighted balancer over equal weights"),
    "GG014": (WARNING, "weights that the balancer ignores"),
    "GG015": (WARNING, "a pool whose backends all have weight 0"),
    "GG016": (WARNING, "slowStart with a balancer that has none"),
    "GG020": (WARNING, "probes that may take longer than their interval"),
    "GG021": (WARNING, "settings of HTTP probes where probes are TCP connects"),
    "GG022": (WARNING, "--probe: a backend that fails its health check"),
    "GG023": (WARNING, "--probe: a backend that cannot be reached"),
    "GG030": (WARNING, "a breaker's count that looks like a percentage"),
    "GG031": (WARNING, "a breaker that the rate limit keeps below minRequests"),
    "GG032": (WARNING, "settings of something that is off"),
    "GG033": (WARNING, "retries of requests that are not idempotent"),
    "GG034": (WARNING, "a request timeout that ends before the tries do"),
    "GG035": (WARNING, "a perTryTimeout after which nothing is tried again"),
    "GG036": (NOTE, "a responseHeader timeout longer than the request's"),
    "GG037": (NOTE, "a grace period that cuts requests which their timeout allows"),
    "GG040": (WARNING, "a limit by something that any client can choose"),
    "GG041": (NOTE, "burst of a limit that has none"),
    "GG042": (WARNING, "a key of a limit that is never reached"),
    "GG050": (WARNING, "an operator's listener open to other hosts without a token"),
    "GG051": (WARNING, "everybody is a trusted proxy"),
    "GG052": (NOTE, "a secret in the file itself"),
    "GG053": (NOTE, "credentials over connections without TLS"),
    "GG054": (WARNING, "any address may be registered"),
    "GG055": (NOTE, "API keys in queries"),
    "GG056": (WARNING, "TLS to backends that are not verified"),
    "GG060": (WARNING, "a certificate that is not valid now"),
    "GG061": (WARNING, "a certificate that expires soon"),
    "GG062": (WARNING, "a route's host that no certificate is for"),
    "GG063": (WARNING, "a private key that everybody on the machine can read"),
    "GG064": (WARNING, "a certificate that is never shown"),
    "GG065": (NOTE, "the same routes with TLS and without"),
}
