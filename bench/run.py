"""gogate beside its peers, in one run: ``python bench/run.py`` (``make bench``); prints markdown.

    --quick              the rows of daily use, against nginx only
    --only ROW,…         these rows (--list has their names)
    --peers NAME,…       these proxies; what is not installed is left out by name
    --write FILE         put the results and the configurations between the markers of a page, too
    --json FILE          every single run, for programs

The machine's speed drifts, so only ratios within one run mean anything: every round of a row runs all proxies one after
the other, and what is compared are the runs of one round. A proxy has its core for itself, load and backends have
another one. CPU is that of all the proxy's processes and threads. The exit code is 1 when a run of gogate had an error.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
from pathlib import Path

import idle
import peers
from loads import Cores, Pace, Run, run
from page import write
from parts import on_core, raise_descriptor_limit
from peers import Backends, Peer, Proxy, started
from results import Results, worker_name
from rows import BY_KEY, KEYS, QUICK, ROWS, SCALES, WORKERS, Scale
from table import report

#: The load average up to which a machine counts as quiet.
QUIET = 0.7


class Bench:
    """One run of the benchmark."""

    def __init__(
        self, found: list[Peer], keys: set[str], pace: Pace, crowd: idle.Crowd, share: float, behind: Backends
    ) -> None:
        self.peers = found
        self.keys = keys
        self.pace = pace
        self.crowd = crowd
        self.share = share
        self.behind = behind
        self.results = Results({peer.name: peer.version for peer in found})

    def all(self) -> Results:
        """Everything that was asked for, one kind after the other."""
        rows = [row for row in ROWS if row.key in self.keys]
        if rows:
            cores = Cores.of_machine(1)
            with contextlib.ExitStack() as stack:
                proxies = [self._start(stack, peer, 1, cores) for peer in self.peers]
                for row in rows:
                    able = {proxy.name: proxy for proxy in proxies if row.listener in proxy.peer.offers}
                    if able:
                        self.results.runs[row.key] = self._rounds(row.key, able, cores)
        self._workers()
        for scale in SCALES:
            if scale.key in self.keys and any(peer.name == "gogate" for peer in self.peers):
                self._scale(scale)
        self._start_up()
        self._memory()
        return self.results

    def _start(self, stack: contextlib.ExitStack, peer: Peer, workers: int, cores: Cores, name: str = "") -> Proxy:
        return stack.enter_context(started(peer, self.behind, workers, cores.proxy, name))

    def _rounds(self, key: str, proxies: dict[str, Proxy], cores: Cores) -> dict[str, list[Run]]:
        """Every round runs all proxies, one after the other."""
        row = WORKERS.get(key) or BY_KEY[key]
        runs: dict[str, list[Run]] = {name: [] for name in proxies}
        for _ in range(self.pace.rounds):
            for name, proxy in proxies.items():
                runs[name].append(run(row, proxy, cores, self.pace))
        said(f"{key}: " + ", ".join(f"{name} {statistics.median(one.cost(row) for one in each):.3g}"
                                    for name, each in runs.items()))  # fmt: skip
        return runs

    def _workers(self) -> None:
        """One worker and two of every proxy, in the same rounds."""
        keys = [key for key in WORKERS if key in self.keys]
        if not keys:
            return
        with contextlib.ExitStack() as stack:
            proxies = [
                self._start(stack, peer, workers, Cores.of_machine(workers), worker_name(peer.name, workers))
                for peer in self.peers for workers in (1, 2)
            ]  # fmt: skip
            for key in keys:
                able = {proxy.name: proxy for proxy in proxies if WORKERS[key].listener in proxy.peer.offers}
                self.results.runs[key] = self._rounds(key, able, Cores.of_machine(2))

    def _scale(self, scale: Scale) -> None:
        """gogate with many of something beside gogate with one of it."""
        cores = Cores.of_machine(1)
        row = BY_KEY["http-64"]
        count = max(2, round(scale.many * self.share))
        base, full = (row._replace(load=tuple(word.replace("{many}", str(count)) for word in load))
                      for load in (scale.base_load, scale.load))  # fmt: skip
        with contextlib.ExitStack() as stack:
            one = self._start(stack, peers.gogate(scale.base_variant), 1, cores)
            many = self._start(stack, peers.gogate(scale.variant, count), 1, cores)
            run(full, many, cores, self.pace._replace(warm_up=scale.fill * self.pace.seconds))
            runs: dict[str, list[Run]] = {"one": [], "many": []}
            for _ in range(self.pace.rounds):
                runs["one"].append(run(base, one, cores, self.pace))
                runs["many"].append(run(full, many, cores, self.pace))
        self.results.runs[scale.key] = runs
        said(f"{scale.key}: {self.results.ratio(scale.key, 'many', 'one', row):.2f}x")

    def _start_up(self) -> None:
        """Starts in turns, on every core, as elsewhere; the median of each."""
        if "start" not in self.keys:
            return
        able = [peer for peer in self.peers if "http" in peer.offers]
        cores = Cores.of_machine(1)
        times: dict[str, list[tuple[float, float]]] = {peer.name: [] for peer in able}
        for _ in range(self.pace.rounds):
            for peer in able:
                times[peer.name].append(idle.start_ms(peer, self.behind, cores.proxy | cores.load))
        for place, key in enumerate(("start", "start-cpu")):
            figures = {name: statistics.median(one[place] for one in each) for name, each in times.items()}
            self.results.figures[key] = figures
            said(f"{key}: {figures}")

    def _memory(self) -> None:
        figures = self.results.figures
        for peer in self.peers:
            if "memory-idle" in self.keys and "http" in peer.offers:
                total, child = idle.idle_memory(peer, self.behind, self.crowd.settle)
                figures.setdefault("memory-idle", {})[peer.name] = total
                figures.setdefault("memory-worker", {})[peer.name] = child
            for listener in ("http", "tcp"):
                key = f"memory-{listener}"
                if key not in self.keys or listener not in peer.offers:
                    continue
                try:
                    found = idle.connection_memory(peer, listener, self.behind, self.crowd)
                except OSError as error:
                    self.results.notes.append(f"{key}, {peer.name}: {error!r}")
                    continue
                for count, kib in found.items():
                    figures.setdefault(f"{key}-{count}", {})[peer.name] = kib
                said(f"{key}: {peer.name} {found}")


def said(line: str) -> None:
    """How far it is, apart from the results."""
    print(line, file=sys.stderr, flush=True)


def chosen(value: str, known: tuple[str, ...], what: str) -> list[str]:
    """The names of a list that a user wrote."""
    names = [name for name in value.split(",") if name]
    for name in names:
        if name not in known:
            raise SystemExit(f"{what} {name!r} is not known; there are {', '.join(known)}")
    return names or list(known)


def arguments() -> argparse.Namespace:
    """What the user wants."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the rows of daily use, against nginx only")
    parser.add_argument("--only", default="", metavar="ROW,…", help="these rows only")
    parser.add_argument("--peers", default="", metavar="NAME,…", help=f"these of {', '.join(peers.NAMES)}")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the results into this page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single run into this file")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.8, help="of each run")
    parser.add_argument("--warm-up", type=float, default=0.2, help="seconds before each run")
    parser.add_argument("--piece", type=int, default=64 << 20, help="bytes that bulk is cut into")
    parser.add_argument("--crowd", default="1000,9000", help="numbers of idle connections")
    parser.add_argument("--many", type=float, default=1.0, help="share of the many routes, backends and keys")
    parser.add_argument("--settle", type=float, default=1.5, help="seconds before memory is read")
    return parser.parse_args()


def main() -> int:
    """Measure, print, write; → exit code."""
    options = arguments()
    if options.list:
        print("\n".join(KEYS))
        return 0
    keys = chosen(options.only, QUICK if options.quick and not options.only else KEYS, "the row")
    names = chosen(options.peers, peers.NAMES, "the proxy")
    if options.quick and not options.peers:
        names = ["gogate", "nginx"]
    raise_descriptor_limit()
    found, missing = peers.find(names)
    pace = Pace(options.rounds, options.seconds, options.warm_up, options.piece)
    crowd = idle.Crowd(tuple(sorted(map(int, options.crowd.split(",")))), options.settle)
    cores = Cores.of_machine(1)
    busy = os.getloadavg()[0]
    with peers.backends(cores.load) as behind, on_core(cores.load):
        results = Bench(found, set(keys), pace, crowd, options.many, behind).all()
    results.notes += [f"{name} is not installed" for name in missing]
    about = (f"{pace.rounds} rounds of {pace.seconds:g} s; proxies on core {sorted(cores.proxy)}, load and backends on "
             f"{sorted(cores.load)}.")  # fmt: skip
    if busy > QUIET:
        about += f" **The machine was busy with other work (load average {busy:.1f}): these figures are rough.**"
    text = report(results, about)
    print(text)
    if options.write:
        write(options.write, text, found)
    if options.json:
        options.json.write_text(results.to_json())
    ours = [runs for row in results.runs.values() for name, runs in row.items()
            if name.split("/")[0] in ("gogate", "one", "many")]  # fmt: skip
    return int(any(one.errors for runs in ours for one in runs))


if __name__ == "__main__":
    sys.exit(main())
