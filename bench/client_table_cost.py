"""What counting a connection per client costs: accept and close together, in µs, best of several rounds.

    python bench/client_table_cost.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from gogate_py.arena import Arena
from gogate_py.dataplane.client_table import ClientTable, client_key

ROUNDS = 7
CALLS = 50_000


def cost(work: Callable[[], object]) -> float:
    """µs per call."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(CALLS):
            work()
        best = min(best, (time.perf_counter() - start) / CALLS)
    return best * 1e6


def main() -> None:
    """Print one line per number of workers."""
    for slots in (1, 2, 8):
        for host in ("192.0.2.1", "2001:db8::1"):
            table = ClientTable(Arena.create(), 0, slots)

            def connection(table: ClientTable = table, host: str = host) -> None:
                table.release(table.admit(client_key(host), 1024))

            first = cost(connection)
            table.admit(client_key(host), 1024)
            print(f"workers {slots}  {host:12}  first {first:.2f} µs  further {cost(connection):.2f} µs")


if __name__ == "__main__":
    main()
