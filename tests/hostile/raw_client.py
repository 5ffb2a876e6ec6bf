"""A client that sends bytes as they are and reads answers strictly: whatever gogate sends must be well-formed, too."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass

STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [\t -~]*")
FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([\t -~\x80-\xff]*)")


class BadAnswer(Exception):
    """gogate sent something that is not HTTP."""


@dataclass
class Answer:
    """One final answer. ``number`` is the backend's (-1: gogate's own)."""

    status: int
    fields: dict[bytes, bytes]
    body: bytes
    number: int

    @property
    def closes(self) -> bool:
        """Whether it says that the connection ends."""
        return self.fields.get(b"connection") == b"close"


def read_answers(data: bytes) -> list[Answer]:
    """All answers of one connection, read to its end. Raises BadAnswer for anything that is not exactly that."""
    answers: list[Answer] = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        status_line = STATUS_LINE.fullmatch(lines[0])
        if not end or status_line is None:
            raise BadAnswer(f"head {head[:200]!r}")
        fields = {}
        for line in lines[1:]:
            field = FIELD.fullmatch(line)
            if field is None or field[1].lower() in fields:
                raise BadAnswer(f"field {line!r}")
            fields[field[1].lower()] = field[2]
        status = int(status_line[1])
        if status < 200:
            if status != 100 or fields:
                raise BadAnswer(f"interim {head!r}")
            continue
        if b"content-length" not in fields:
            raise BadAnswer(f"no length: {head!r}")
        number = int(fields.get(b"x-backend-number", b"-1"))
        # A HEAD answer has no body; gogate's own answers are the last ones, so theirs may be missing for a HEAD, too.
        length = int(fields[b"content-length"])
        if fields.get(b"x-backend-method") == b"HEAD" or (number < 0 and not data):
            length = 0
        if len(data) < length:
            raise BadAnswer(f"body of {head!r} cut")
        answers.append(Answer(status, fields, data[:length], number))
        data = data[length:]
    return answers


async def talk(host: str, port: int, pieces: list[bytes], limit: float = 15.0) -> tuple[bytes, str]:
    """Send the pieces and read until the peer ends the connection → (all that came, "eof" or "reset").

    Never closes first, so that every request that a backend got is answered. Raises TimeoutError after ``limit``
    seconds: a hang.
    """
    received = bytearray()
    async with asyncio.timeout(limit):
        reader, writer = await asyncio.open_connection(host, port)
        try:

            async def send() -> None:
                with contextlib.suppress(ConnectionError):
                    for piece in pieces:
                        writer.write(piece)
                        await writer.drain()
                        for _ in range(4):
                            await asyncio.sleep(0)

            sending = asyncio.create_task(send())
            ending = "eof"
            try:
                while data := await reader.read(65536):
                    received += data
            except ConnectionError:
                ending = "reset"
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            return bytes(received), ending
        finally:
            writer.transport.abort()
