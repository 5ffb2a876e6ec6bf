"""Overrides: what operators changed at run time over the admin API, apart from the file and shown as such.

A weight of a backend, the weights of a split. The configured value is never changed, so that an override can be taken
back, and so that everybody sees which of the two is in force and since when (FEATURES.md section 4, item 15). They live
as long as the gateway, with a store (server.registry.store) longer. Pure but for the clock that is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen

from gogate_py.controlplane.rows import Key


@frozen
class Override:
    """A value in force instead of the configured one. ``since``: seconds since 1970."""

    value: int
    since: float


class Overrides:
    """All of them. ``wall`` tells the time, for people."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._weights: dict[Key, Override] = {}
        self._splits: dict[str, dict[str, Override]] = {}

    def weight(self, key: Key) -> Override | None:
        """Of a backend."""
        return self._weights.get(key)

    def split(self, route: str) -> Mapping[str, Override]:
        """Of the arms of a route, by pool."""
        return self._splits.get(route, {})

    def all(self) -> tuple[dict[Key, Override], dict[str, dict[str, Override]]]:
        """Every override: weights of backends, weights of arms by route and pool."""
        return dict(self._weights), {route: dict(arms) for route, arms in self._splits.items()}

    def put_back(self, weights: Mapping[Key, Override], splits: Mapping[str, Mapping[str, Override]]) -> None:
        """Take over what :meth:`all` said in another process, as it was."""
        self._weights.update(weights)
        self._splits.update({route: dict(arms) for route, arms in splits.items()})

    def weights(self) -> list[tuple[Key, Override]]:
        """Of all backends."""
        return sorted(self._weights.items())

    def splits(self) -> list[tuple[str, str, Override]]:
        """Of all routes: route, pool, override."""
        return [(route, pool, one) for route, arms in sorted(self._splits.items()) for pool, one in arms.items()]

    def set_weight(self, key: Key, weight: int | None) -> None:
        """Give a backend another weight; None takes the override back."""
        if weight is None:
            self._weights.pop(key, None)
        else:
            self._weights[key] = Override(weight, self._wall())

    def set_split(self, route: str, weights: Mapping[str, int] | None) -> None:
        """Give arms of a route other weights (those left out keep theirs); None takes all of the route's back."""
        if weights is None:
            self._splits.pop(route, None)
            return
        now = self._wall()
        self._splits[route] = {
            **self._splits.get(route, {}),
            **{pool: Override(weight, now) for pool, weight in weights.items()},
        }
