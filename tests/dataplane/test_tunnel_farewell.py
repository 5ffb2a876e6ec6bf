"""What a WebSocket hears when its time is up: 1001 between two frames, nothing inside of one."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from doubles.http_plane import Client, HttpPlane, run, until
from doubles.stub_upstream import StubUpstream, Talk

from gogate_py.wire.websocket_frames import close_frame

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
UPGRADE = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
TEXT = b"\x81\x05hello"
TEXT_MASKED = b"\x81\x85\x00\x00\x00\x00hello"
GOODBYE = b"\x88\x02\x03\xe9"


class Told:
    """A backend that greets and keeps what it is told; ``answers`` a close frame with its own."""

    def __init__(self, greeting: bytes = TEXT, *, answers: bool = True) -> None:
        self.heard = b""
        self._greeting = greeting
        self._answers = answers

    async def __call__(self, talk: Talk) -> None:
        await talk.head()
        await talk.send(SWITCH + self._greeting)
        with suppress(ConnectionError):
            while data := await talk.some():
                self.heard += data
                if self._answers and b"\x88" in data:
                    await talk.send(GOODBYE)

    def unmasked_close(self) -> bytes:
        """The close frame at the end of what it heard, as it is without its mask."""
        frame = self.heard[-8:]
        assert frame[:2] == b"\x88\x82"
        assert frame == close_frame(1001, frame[2:6])
        return bytes(byte ^ frame[2 + index] for index, byte in enumerate(frame[6:]))


async def opened(bed: HttpPlane) -> Client:
    """A client behind the 101."""
    client = await bed.client()
    await client.send(UPGRADE)
    await client.head()
    return client


@LOOPS
def test_both_sides_are_told(loop: str) -> None:
    """At the end of the grace time both sides get 1001, the backend's masked; it ends when both have answered."""
    told = Told()

    async def main() -> None:
        async with HttpPlane(StubUpstream(told)) as bed:
            client = await opened(bed)
            await client.exactly(len(TEXT))
            await client.send(TEXT_MASKED)
            await until(lambda: told.heard == TEXT_MASKED)
            bed.site.send_away()
            assert await client.exactly(4) == GOODBYE
            await client.send(b"\x88\x82\x00\x00\x00\x00\x03\xe9")
            assert await client.until_eof() == b""
            await until(lambda: not bed.site.clients)
            assert told.unmasked_close() == b"\x03\xe9"
            assert (await bed.logged())[0]["reason"] == "grace_period"

    run(main(), loop)


@LOOPS
@pytest.mark.parametrize("mute", ["client", "backend"])
def test_who_does_not_answer_is_not_waited_for(mute: str, loop: str) -> None:
    """One of them goes on talking instead: nothing of it is passed on behind the close frame, and FAREWELL ends it."""
    told = Told(answers=mute == "client")

    async def main() -> None:
        async with HttpPlane(StubUpstream(told)) as bed:
            client = await opened(bed)
            await client.exactly(len(TEXT))
            bed.site.send_away()
            assert await client.exactly(4) == GOODBYE
            await client.send(TEXT_MASKED)
            if mute == "backend":
                await client.send(b"\x88\x82\x00\x00\x00\x00\x03\xe9")
            await until(lambda: len(told.heard) == 8)
            assert bed.site.clients
            bed.pass_time(2)
            assert await client.ends() in ("eof", "reset")
            await until(lambda: not bed.site.clients)
            assert told.unmasked_close() == b"\x03\xe9"

    run(main(), loop)


@pytest.mark.parametrize(
    ("greeting", "sent", "client_hears", "backend_hears"),
    [
        (TEXT[:3], TEXT_MASKED, b"", 8),
        (TEXT[:1], TEXT_MASKED, b"", 8),
        (TEXT + b"\x82\x7f\x00\x00", TEXT_MASKED, b"", 8),
        (TEXT, TEXT_MASKED[:8], GOODBYE, 0),
        (TEXT[:3], TEXT_MASKED[:8], b"", 0),
        (TEXT + GOODBYE, TEXT_MASKED, b"", 8),  # a close frame has gone that way already
    ],
)
def test_inside_a_frame_nothing_is_said(greeting: bytes, sent: bytes, client_hears: bytes, backend_hears: int) -> None:
    """A side to which part of a frame went is closed without a word; the other one is told."""
    told = Told(greeting, answers=False)

    async def main() -> None:
        async with HttpPlane(StubUpstream(told)) as bed:
            client = await opened(bed)
            await client.exactly(len(greeting))
            await client.send(sent)
            await until(lambda: told.heard == sent)
            bed.site.send_away()
            await until(lambda: len(told.heard) == len(sent) + backend_hears)
            bed.pass_time(2)
            assert await client.until_eof() == client_hears
            if backend_hears:
                assert told.unmasked_close() == b"\x03\xe9"

    run(main())


@pytest.mark.parametrize("ended", ["client", "backend"])
def test_a_direction_that_has_ended_hears_nothing(ended: str) -> None:
    """Behind a FIN there is no close frame; the other direction gets one."""

    async def main() -> None:
        heard: list[bytes] = []
        over = asyncio.Event()

        async def play(talk: Talk) -> None:
            await talk.head()
            await talk.send(SWITCH)
            if ended == "backend":
                talk.eof()
            heard.append(await talk.until_eof())
            await over.wait()

        async with HttpPlane(StubUpstream(play)) as bed:
            client = await opened(bed)
            if ended == "client":
                client.eof()
                await until(lambda: heard)
            else:
                await until(lambda: bed.plane.hangups._watched)
            bed.site.send_away()
            bed.pass_time(2)
            assert await client.until_eof() == (GOODBYE if ended == "client" else b"")
            await until(lambda: heard)
            assert len(heard[0]) == (8 if ended == "backend" else 0)
            over.set()

    run(main())


@LOOPS
def test_the_grace_time_of_a_worker(loop: str) -> None:
    """drain() with no grace left tells a WebSocket, waits for its answer only so long, and cuts."""
    told = Told(answers=False)

    async def main() -> None:
        async with HttpPlane(StubUpstream(told)) as bed:
            client = await opened(bed)
            await client.exactly(len(TEXT))
            draining = asyncio.get_running_loop().create_task(bed.plane.drain(0.0, 0.0))
            assert await client.exactly(4) == GOODBYE
            assert not draining.done()
            assert await draining == 1
            assert await client.ends() in ("eof", "reset")
            assert told.unmasked_close() == b"\x03\xe9"

    run(main(), loop)


def test_a_client_that_takes_nothing_is_cut() -> None:
    """A close frame that cannot be delivered holds nothing up."""

    async def main() -> None:
        async def flood(talk: Talk) -> None:
            await talk.head()
            await talk.send(SWITCH)
            with suppress(ConnectionError):
                while True:
                    await talk.send(b"\x82\x7e\xff\xff" + bytes(65535))

        async with HttpPlane(StubUpstream(flood), send_buffer=65536) as bed:
            client = await bed.client(limit=65536, receive_buffer=65536)
            await client.send(UPGRADE)
            await client.head()
            await until(lambda: any(c.write_paused for c in bed.site.clients))
            assert await bed.plane.drain(0.0, 0.0) == 1
            await until(lambda: not bed.site.clients)

    run(main())
