"""Advice: what runs, but most likely does not do what was meant. The codes are in codes.py.

Looks at configurations without problems only, and only at what was written: a default is nobody's mistake. What is
inherited is told where it is written. Nothing here keeps gogate from starting, asks the network or reads a file.
"""

from __future__ import annotations

from gogate_py.config.advice_access import advise_access
from gogate_py.config.advice_pools import advise_pools
from gogate_py.config.advice_tls import advise_tls
from gogate_py.config.advice_traffic import advise_traffic
from gogate_py.config.problems import Findings
from gogate_py.config.schema import Config


def advise(config: Config, findings: Findings) -> None:
    """Add every warning and note about a configuration."""
    advise_pools(config, findings)
    advise_traffic(config, findings)
    advise_access(config, findings)
    advise_tls(config, findings)
