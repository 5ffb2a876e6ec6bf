"""Zygote: the process that workers are forked from.

A fresh interpreter (``python -c``, started by the supervisor) with the data plane imported and the collector frozen,
single-threaded for life: forking it is cheap and safe, and its children share its pages. It never imports what only the
control plane needs.

Protocol, over one Unix socketpair (SOCK_SEQPACKET: a datagram is a message):

    supervisor → zygote   {"fork": n} with [channel, arena, stack file] descriptors
    zygote → supervisor   {"forked": n, "pid": p} with the child's pidfd, or {"failed": n, "error": text}
    zygote → supervisor   {"exited": pid, "status": waitpid status}

EOF on the socket: the supervisor is gone, and so is the zygote. Workers learn of it by themselves, from their channels.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
from typing import Any


def main(fd: int) -> None:
    """Serve fork requests until the supervisor closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # msgspec takes its helpers from typing_extensions where that is installed, and from typing where not: without it
    # each worker has 0.4 MB less.
    modules: dict[str, Any] = sys.modules
    modules.setdefault("typing_extensions", None)
    # Imported here so that every worker has them: this is what the zygote is for.
    from gogate_py.process import worker

    if modules["typing_extensions"] is None:
        del modules["typing_extensions"]
    worker.name_process("gogate-zygote")
    sock = socket.socket(fileno=fd)
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.collect()
    gc.freeze()
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    while True:
        ready = poll.poll()
        for ready_fd, _ in ready:
            if ready_fd == wake_read:
                try:
                    os.read(wake_read, 512)
                except BlockingIOError:
                    pass
                _reap(sock)
                continue
            try:
                data, fds, _, _ = socket.recv_fds(sock, 4096, 8)
            except ConnectionResetError:  # EOF, with something of ours left unread
                return
            if not data:
                return
            channel_fd, arena_fd, stack_fd = fds
            number = json.loads(data)["fork"]
            try:
                pid = os.fork()
            except OSError as error:
                _say(sock, {"failed": number, "error": str(error)})
                for mine in fds:
                    os.close(mine)
                continue
            if pid == 0:
                # --- the child: nothing of the zygote is left open, then the worker runs
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for mine in (sock.detach(), wake_read, wake_write):
                    os.close(mine)
                status = 70
                try:
                    status = worker.run(channel_fd, arena_fd, stack_fd)
                finally:
                    # Never back into the zygote's loop, whatever happened; buffers of stdio are its, not ours.
                    os._exit(status)
            # The pidfd is taken before anybody can reap the child, so it can never name another process.
            pidfd = os.pidfd_open(pid)
            _say(sock, {"forked": number, "pid": pid}, [pidfd])
            for mine in (pidfd, *fds):
                os.close(mine)


def _say(sock: socket.socket, message: dict[str, Any], fds: list[int] | None = None) -> None:
    try:
        socket.send_fds(sock, [json.dumps(message).encode()], fds or [])
    except OSError:
        sys.exit(0)


def _reap(sock: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say(sock, {"exited": pid, "status": status})


if __name__ == "__main__":
    main(int(sys.argv[1]))
