"""The life of the processes: what a crash or a signal costs, and what it must not cost."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import threading
from collections.abc import Iterator
from functools import partial

import psutil
import pytest
from doubles.configs import ANY, gateway_config, http_gateway
from doubles.gateway import Gateway, echo_server, wait_for
from doubles.http_backend import HttpBackend
from doubles.load import Load, read_answer
from doubles.servers import free_port


@pytest.fixture
def backend() -> Iterator[HttpBackend]:
    with HttpBackend() as one:
        yield one


class Held:
    """Requests that a holding backend keeps: each in a thread, with its answer (or what happened instead)."""

    def __init__(self, gateway: Gateway, backend: HttpBackend, count: int) -> None:
        self.answers: list[tuple[int, str] | str] = []
        self._gateway = gateway
        backend.hold()
        before = backend.in_flight
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()
        wait_for(lambda: backend.in_flight == before + count, what=f"{count} requests to be held")

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(*self._gateway.address("http:default"), timeout=30)
        try:
            connection.request("GET", "/held")
            answer = connection.getresponse()
            answer.read()
            self.answers.append((answer.status, answer.getheader("Connection", "")))
        except (OSError, http.client.HTTPException) as error:
            self.answers.append(type(error).__name__)
        finally:
            connection.close()

    def wait(self) -> list[tuple[int, str] | str]:
        """All outcomes."""
        for thread in self._threads:
            thread.join(30)
        return self.answers


def _readiness(gateway: Gateway) -> int:
    try:
        return gateway.admin_request("GET", "/ready")[0]
    except OSError:
        return 0


def _gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def _client_ports(pid: int, listener: tuple[str, int]) -> set[int]:
    """Ports of the clients whose accepted connections this process holds."""
    return {
        c.raddr.port
        for c in psutil.Process(pid).net_connections("tcp")
        if c.status == psutil.CONN_ESTABLISHED and c.laddr.port == listener[1]
    }


# --- a worker dies


def test_kill_9_of_a_worker_costs_its_own_connections_only(backend: HttpBackend) -> None:
    """kill -9 of a worker under load: only requests on connections it had accepted fail, and it is replaced."""
    backend.delay = 0.02
    with Gateway(http_gateway(backend.address)) as gateway:
        listener = gateway.address("http:default")
        with Load(listener, kept=12, fresh=12) as load:
            load.wait_ok(200)
            for slot in (0, 1):
                before = gateway.pids()
                os.kill(before[slot], signal.SIGSTOP)  # so that what it has can be listed exactly
                owned = _client_ports(before[slot], listener)
                lost_before = len(load.lost_ports)
                os.kill(before[slot], signal.SIGKILL)
                pids = wait_for(partial(_replaced, gateway, before, slot), what="a new worker")
                assert pids[1 - slot] == before[1 - slot]
                load.wait_ok(200)
                assert set(load.lost_ports[lost_before:]) <= owned
        assert load.outcomes["refused"] == 0
        assert load.outcomes["error"] == 0
        wait_for(lambda: gateway.metric("gogate_worker_restarts_total") == 2, what="the restarts to be counted")
        assert [worker["restarts"] for worker in gateway.admin_json("GET", "/stats")["workers"]] == [1, 1]
        assert gateway.metric("gogate_workers") == 2
        assert gateway.stop() == 0


def _replaced(gateway: Gateway, before: list[int], slot: int) -> list[int] | None:
    workers = gateway.admin_json("GET", "/stats")["workers"]
    if workers[slot]["pid"] != before[slot] and workers[slot]["state"] == "serving":
        return [worker["pid"] for worker in workers]
    return None


def test_a_worker_is_replaced_within_a_second(backend: HttpBackend) -> None:
    """With one worker, a request that comes while there is none waits in the socket's queue and is answered."""
    with Gateway(http_gateway(backend.address, workers=1)) as gateway:
        (pid,) = gateway.pids()
        os.kill(pid, signal.SIGKILL)
        with socket.create_connection(gateway.address("http:default"), timeout=1.0) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 200")  # within its timeout, a second


def test_l4_connections_of_other_workers_survive() -> None:
    """kill -9 of a worker ends the L4 connections it had; those of the other worker go on."""
    with echo_server() as (host, port):
        config = gateway_config({"listenAddr": ANY, "backends": [f"{host}:{port}"], "health": {"enabled": False}})
        with Gateway(config) as gateway:
            address = gateway.address("tcp:default-tcp")
            socks = [socket.create_connection(address, timeout=10) for _ in range(24)]
            for sock in socks:
                _ping(sock)
            listed = gateway.admin_json("GET", "/connections")["connections"]
            worker = {int(c["client"].rpartition(":")[2]): c["worker"] for c in listed}
            assert set(worker.values()) == {0, 1}
            os.kill(gateway.pids()[0], signal.SIGKILL)
            for sock in socks:
                if worker[sock.getsockname()[1]] == 0:
                    with contextlib.suppress(ConnectionResetError):
                        assert sock.recv(10) == b""
                else:
                    _ping(sock)
            with socket.create_connection(address, timeout=10) as fresh:
                _ping(fresh)
            wait_for(lambda: gateway.metric("gogate_backend_connections_active") == 24 - list(worker.values()).count(0),
                     what="the dead worker's connections to leave the count")
            for sock in socks:
                sock.close()


def _ping(sock: socket.socket) -> None:
    sock.sendall(b"ping")
    assert sock.recv(10) == b"ping"


def _zygote(gateway: Gateway) -> psutil.Process | None:
    for child in psutil.Process(gateway.process.pid).children():
        with contextlib.suppress(psutil.Error):
            if "gogate_py.process.zygote" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                return child
    return None


def test_kill_9_of_the_zygote_leaves_the_workers_alone(backend: HttpBackend) -> None:
    """The zygote is replaced when it dies; workers do not notice, and later deaths of workers are still repaired."""
    with Gateway(http_gateway(backend.address)) as gateway:
        before = gateway.pids()
        zygote = _zygote(gateway)
        assert zygote is not None
        with Load(gateway.address("http:default"), kept=4, fresh=4) as load:
            load.wait_ok(50)
            zygote.kill()
            wait_for(lambda: (new := _zygote(gateway)) and new.pid != zygote.pid, what="a new zygote")
            load.wait_ok(50)
            assert gateway.pids() == before
        assert load.lost == []
        assert load.outcomes["refused"] == 0
        # this worker's parent is gone: it must be noticed, and replaced by the new zygote
        os.kill(before[1], signal.SIGKILL)
        wait_for(lambda: _replaced(gateway, before, 1), what="a new worker")
        assert gateway.get()[0] == 200
        assert gateway.stop() == 0


def test_a_worker_that_keeps_dying_is_given_time(backend: HttpBackend) -> None:
    """Its first replacement comes at once, further ones after 1, 2 … s; the other worker serves all the while, and
    nobody who waits in the dead one's queue is lost."""
    with Gateway(http_gateway(backend.address)) as gateway, Load(
        gateway.address("http:default"), kept=4, fresh=4, pause=0.02
    ) as load:
        load.wait_ok(20)
        owned: set[int] = set()
        for times in (1, 2, 3):
            before = gateway.pids()
            os.kill(before[0], signal.SIGSTOP)  # so that what it has can be listed exactly
            owned |= _client_ports(before[0], gateway.address("http:default"))
            os.kill(before[0], signal.SIGKILL)
            wait_for(lambda times=times: len(gateway.logged("worker keeps dying")) == times - 1, what="the pause")
            load.wait_ok(20)
            wait_for(lambda before=before: _replaced(gateway, before, 0), what="a new worker")
            assert gateway.pids()[1] == before[1]
        assert [line["next_try_s"] for line in gateway.logged("worker keeps dying")] == [1.0, 2.0]
        load.wait_ok(20)
        load.stop()
        assert set(load.lost_ports) <= owned
        assert load.outcomes["refused"] == load.outcomes["error"] == 0
        assert gateway.stop() == 0


# --- the end


def test_sigterm_under_load_fails_no_request(backend: HttpBackend) -> None:
    """SIGTERM under load, kept-alive and one-shot clients: every request that was accepted is answered, exit code 0."""
    backend.delay = 0.05
    with Gateway(http_gateway(backend.address)) as gateway:
        with Load(gateway.address("http:default"), kept=16, fresh=16, pause=0.01) as load:
            load.wait_ok(300)
            assert gateway.stop() == 0
        assert load.lost == []
        assert load.outcomes["error"] == 0
        assert gateway.logged("stopped")


def test_sigterm_serves_what_the_kernel_has_accepted(backend: HttpBackend) -> None:
    """Connections that wait in the accept queues when the drain begins are accepted and answered."""
    with Gateway(http_gateway(backend.address)) as gateway, contextlib.ExitStack() as stack:
        pids = gateway.pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        address = gateway.address("http:default")
        socks = [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(30)]
        for sock in socks:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        gateway.send_signal(signal.SIGTERM)
        wait_for(lambda: _readiness(gateway) == 503, what="readiness 503")
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        for sock in socks:
            answer = b""
            while more := sock.recv(65536):
                answer += more  # until the gateway closes, at the latest after drainIdle
            assert answer.startswith(b"HTTP/1.1 200 ")
        assert gateway.process.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_drain(backend: HttpBackend, number: int) -> None:
    """On SIGTERM or SIGINT: readiness 503, nothing accepted, what runs is answered with Connection: close, exit 0."""
    with Gateway(http_gateway(backend.address)) as gateway:
        held = Held(gateway, backend, 10)
        assert _readiness(gateway) == 200
        gateway.send_signal(number)
        wait_for(lambda: _readiness(gateway) == 503, what="readiness 503")
        assert gateway.admin_request("GET", "/health")[0] == 200
        wait_for(lambda: _refused(gateway.address("http:default")), what="connections to be refused")
        assert gateway.process.poll() is None
        backend.release()
        assert held.wait() == [(200, "close")] * 10
        assert gateway.process.wait(10) == 0


def _refused(address: tuple[str, int]) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(address) != 0


def test_drain_delay_keeps_accepting(backend: HttpBackend) -> None:
    """During drainDelay readiness is 503 and everything is served as before, for load balancers that look first."""
    shutdown = {"drainDelay": "60s"}
    with Gateway(http_gateway(backend.address, shutdown=shutdown)) as gateway:
        gateway.send_signal(signal.SIGTERM)
        wait_for(lambda: _readiness(gateway) == 503, what="readiness 503")
        for _ in range(10):
            assert gateway.get()[0] == 200
        gateway.send_signal(signal.SIGTERM)
        assert gateway.process.wait(10) is not None


def test_a_kept_client_may_still_ask_while_draining(backend: HttpBackend) -> None:
    """An idle kept-alive client's next request in drainIdle is answered, with Connection: close."""
    async def run(gateway: Gateway) -> None:
        reader, writer = await asyncio.open_connection(*gateway.address("http:default"))
        request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write(request)
        assert (await read_answer(reader))[0] == 200
        gateway.send_signal(signal.SIGTERM)
        await asyncio.to_thread(wait_for, lambda: _refused(gateway.address("http:default")))
        writer.write(request)
        status, fields, _ = await read_answer(reader)
        assert (status, fields.get("connection")) == (200, "close")
        assert await reader.read() == b""
        writer.close()

    with Gateway(http_gateway(backend.address, shutdown={"drainIdle": "20s"})) as gateway:
        asyncio.run(run(gateway))
        assert gateway.process.wait(10) == 0  # long before drainIdle is over: nobody is left


def test_the_grace_period_ends_what_hangs(backend: HttpBackend) -> None:
    """A request still running at the end of gracePeriod is cut, and the exit code is 0 all the same."""
    with Gateway(http_gateway(backend.address, shutdown={"gracePeriod": "300ms"})) as gateway:
        held = Held(gateway, backend, 3)
        gateway.send_signal(signal.SIGTERM)
        assert gateway.process.wait(10) == 0
        assert all(isinstance(answer, str) for answer in held.wait())


def test_a_second_signal_ends_now(backend: HttpBackend) -> None:
    """While requests hold up the drain, a second SIGTERM ends everything at once, workers too."""
    with Gateway(http_gateway(backend.address)) as gateway:
        pids = gateway.pids()
        held = Held(gateway, backend, 2)
        gateway.send_signal(signal.SIGTERM)
        wait_for(lambda: _readiness(gateway) == 503, what="readiness 503")
        gateway.send_signal(signal.SIGTERM)
        assert gateway.process.wait(10) == 0
        wait_for(lambda: all(_gone(pid) for pid in pids), what="the workers to be gone")
        assert all(isinstance(answer, str) for answer in held.wait())
        assert gateway.logged("second signal: ending now")


def test_a_dead_supervisor_is_replaced_on_the_same_ports(backend: HttpBackend) -> None:
    """kill -9 of the supervisor: its workers finish what runs; a new gogate serves on the same ports at once."""
    port, admin = free_port(), free_port()
    config = http_gateway(
        backend.address, httpListenAddr=f"127.0.0.1:{port}", admin={"listenAddr": f"127.0.0.1:{admin}"}
    )
    with Gateway(config) as old:
        pids = old.pids()
        held = Held(old, backend, 6)
        old.process.kill()
        old.process.wait()
        with Gateway(config) as new:
            assert new.address("http:default") == ("127.0.0.1", port)
            assert not set(new.pids()) & set(pids)
            backend.release()
            assert held.wait() == [(200, "close")] * 6
            assert new.get()[0] == 200
            wait_for(lambda: all(_gone(pid) for pid in pids), what="the old workers to end")
            assert new.stop() == 0


def test_sighup_of_the_same_file_changes_nothing(backend: HttpBackend) -> None:
    """SIGHUP reads the file again; the same configuration is nothing to do."""
    with Gateway(http_gateway(backend.address)) as gateway:
        gateway.send_signal(signal.SIGHUP)
        wait_for(lambda: gateway.logged("configuration is unchanged"), what="the line about SIGHUP")
        assert gateway.get()[0] == 200
        assert gateway.stop() == 0


def test_zygotes_and_workers_that_die_together_are_replaced_once(backend: HttpBackend) -> None:
    """Each slot gets one new worker, whatever died first; zygotes that die young are not started in a tight loop."""
    with Gateway(http_gateway(backend.address)) as gateway:
        for _ in range(3):
            before = gateway.pids()
            zygote = wait_for(lambda: _zygote(gateway), what="a zygote")
            os.kill(before[0], signal.SIGKILL)
            zygote.kill()
            os.kill(before[1], signal.SIGKILL)
            wait_for(
                lambda before=before: _replaced(gateway, before, 0) and _replaced(gateway, before, 1),
                20.0,
                "two new workers",
            )
        assert gateway.get()[0] == 200
        family = psutil.Process(gateway.process.pid).children(recursive=True)
        # one zygote and two workers; those of a zygote that was killed are children of init
        assert len(family) <= 3
        assert gateway.stop() == 0
