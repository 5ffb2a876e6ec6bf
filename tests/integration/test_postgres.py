"""PostgreSQL through the L4 listener: its own handshake, long streams, cancelling on a second connection."""

from __future__ import annotations

import hashlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import need_program
from doubles.configs import tcp_gateway
from doubles.gateway import Gateway, wait_for
from doubles.load import sampled_memory
from doubles.servers import postgres

ROWS = 100_000
ROW_BYTES = 1_000


class Database:
    """psql and pgbench, through the gateway or straight to the server."""

    def __init__(self, gateway: Gateway, port: int) -> None:
        self.gateway = gateway
        self.through = gateway.address("tcp:postgres")[1]
        self.direct = port
        self.psql = [need_program("psql"), "-h", "127.0.0.1", "-U", "postgres", "-XqAt", "-v", "ON_ERROR_STOP=1"]

    def run(self, sql: str, *, direct: bool = False) -> str:
        """What a script prints; it must succeed."""
        command = [*self.psql, "-p", str(self.direct if direct else self.through)]
        done = subprocess.run(command, input=sql, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pgbench(self, *options: str) -> str:
        """A pgbench run, which must end well; → its report."""
        where = ["-h", "127.0.0.1", "-p", str(self.through), "-U", "postgres"]
        command = [need_program("pgbench"), *where, *options, "postgres"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with postgres() as port, Gateway(tcp_gateway("postgres", f"127.0.0.1:{port}")) as gateway:
        yield Database(gateway, port)


def test_transactions_commit_and_roll_back(database: Database) -> None:
    """Transactions work through the gateway: what was committed is there, what was rolled back is not."""
    out = database.run("""
        create table accounts (id int primary key, amount int not null);
        begin; insert into accounts select n, 100 from generate_series(1, 1000) n; commit;
        begin; update accounts set amount = 0; rollback;
        begin; savepoint s; delete from accounts; rollback to s; update accounts set amount = 101 where id = 7; commit;
        select count(*), sum(amount) from accounts;
    """)
    assert out.strip() == "1000|100001"


def test_copy_of_100_megabytes_is_exact_both_ways(database: Database, tmp_path: Path) -> None:
    """100 MB go in by COPY FROM STDIN and come back by COPY TO STDOUT with the same checksum, in flat memory."""
    lines = (f"{n}\t{hashlib.sha256(b'%d' % n).hexdigest() * 16}"[: ROW_BYTES - 1] + "\n" for n in range(ROWS))
    source = tmp_path / "rows"
    source.write_text("".join(lines))
    assert source.stat().st_size == ROWS * ROW_BYTES
    database.run("create table rows (n int, noise text);")
    psql = [*database.psql, "-p", str(database.through)]
    with sampled_memory(database.gateway.pids()) as memory:
        with source.open("rb") as file:
            done = subprocess.run([*psql, "-c", "copy rows from stdin"], stdin=file, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        back = subprocess.run([*psql, "-c", "copy rows to stdout"], capture_output=True, timeout=60)
    assert hashlib.sha256(back.stdout).digest() == hashlib.sha256(source.read_bytes()).digest()
    assert memory.growth() < 16 << 20


def test_a_query_is_cancelled(database: Database) -> None:
    """Ctrl-C in psql opens a second connection with the cancel key; it ends the query of the first one."""
    command = [*database.psql, "-p", str(database.through), "-c", "select pg_sleep(300)"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running = "select count(*) from pg_stat_activity where query = 'select pg_sleep(300)' and state = 'active';"
    wait_for(lambda: database.run(running, direct=True).strip() == "1", what="the query to run")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert "canceling statement due to user request" in error
    assert database.run(running, direct=True).strip() == "0"


@pytest.mark.parametrize("connect_each", [False, True], ids=["sessions", "a connection per transaction"])
def test_pgbench_has_no_failed_transaction(database: Database, connect_each: bool) -> None:
    """pgbench's transactions all succeed, with lasting sessions and with a new connection for each."""
    database.pgbench("-i", "-q", "-s", "1")
    per_client = 25 if connect_each else 150
    report = database.pgbench("-n", "-c", "8", "-j", "2", "-t", str(per_client), *(["-C"] if connect_each else []))
    assert f"transactions actually processed: {8 * per_client}/{8 * per_client}" in report
    assert "number of failed transactions: 0" in report


def test_live_sessions_are_listed(database: Database) -> None:
    """A psql session shows in the admin API as a connection of its route, with its backend and its bytes."""
    command = [*database.psql, "-p", str(database.through)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("select 'hello';\n")
    process.stdin.flush()
    assert process.stdout.readline() == "hello\n"
    (connection,) = [
        c for c in database.gateway.admin_json("GET", "/connections")["connections"] if c["route"] == "postgres"
    ]
    assert connection["backend"] == f"127.0.0.1:{database.direct}"
    assert connection["state"] == "open"
    assert connection["bytes_in"] > 0
    assert connection["bytes_out"] > 0
    process.communicate("", timeout=10)
    wait_for(lambda: not database.gateway.admin_json("GET", "/connections")["connections"], what="the session to end")
