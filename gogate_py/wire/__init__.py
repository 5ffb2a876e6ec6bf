"""Sans-io: bytes to meaning and back. Nothing here imports asyncio, socket, time or logging; callers own all I/O."""
