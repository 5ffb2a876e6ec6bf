"""How names of backends are asked for. A part of schema.py."""

from __future__ import annotations

import attrs

from gogate_py.config.settings import setting
from gogate_py.config.values import DAY, Duration


@attrs.frozen
class Dns:
    """Names of backends: each is asked for again and again, in the background."""

    refresh: float = setting(Duration(0.1, DAY), "from an answer to the next question", default=30.0)
    floor: float = setting(Duration(0.1, 3600), "between two questions at least, whatever fails", default=1.0)
    keep_last_good: float = setting(
        Duration(0, 30 * DAY), "the last good answer is used so long while questions fail", default=900.0)
