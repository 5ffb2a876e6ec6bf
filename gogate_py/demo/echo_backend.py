"""A TCP server that sends back every byte: ``python -m gogate_py.demo.echo_backend --port 7001``.

It half-closes after its client did, as a well-behaved TCP service does, so that ``nc -N`` sees the whole echo.
"""

from __future__ import annotations

import asyncio
import signal

import click

from gogate_py.demo.lifeline import end_with_parent


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection until its client is done or gone."""
    try:
        while data := await reader.read(64 << 10):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
        await writer.drain()
    except OSError:
        pass  # the client reset the connection: there is nobody to tell
    finally:
        writer.close()


async def serve(host: str, port: int) -> None:
    """Listen until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await asyncio.start_server(echo, host, port)
    await stop.wait()
    server.close()
    # Connections that are still open end with the loop: an echo has nothing to finish.


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), required=True)
def main(host: str, port: int) -> None:
    """Echo every byte of every connection."""
    end_with_parent()
    asyncio.run(serve(host, port))


if __name__ == "__main__":
    main()
