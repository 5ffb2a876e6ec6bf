"""The second opinion on where a request head ends and what it frames: llhttp, through httptools.

Our own check decides what is acceptable (head_check, fast_head); llhttp, which other people attack and fuzz, must agree
on the framing, so that a mistake in either of them alone is a refusal and not a smuggled request. Only
on_message_complete is registered: each further callback would cost microseconds on every request (PERFORMANCE.md).
"""

from __future__ import annotations

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser


class _Completions:
    """What a parser calls. Apart from RequestFraming, so that no reference cycle keeps a parser alive."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def on_message_complete(self) -> None:
        self.count += 1


class RequestFraming:
    """A parser that is always between two messages, because it is only ever given whole heads.

    So it holds no state of a connection: one per worker is enough.
    """

    __slots__ = ("_completions", "_parser")

    def __init__(self) -> None:
        self._completions = _Completions()
        self._parser = HttpRequestParser(self._completions)

    def agrees_one_message(self, data: bytes, closes: bool = False) -> bool:
        """Whether llhttp, too, sees exactly one complete message without a body in ``data`` (about 0.6 µs). ``closes``:
        it says that it is the last one, and llhttp takes none after it."""
        # One message completed may still leave the parser inside of the next one: nothing may be behind the head.
        if data.find(b"\r\n\r\n") != len(data) - 4:
            return False
        completions = self._completions
        completions.count = 0
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            completions.count = 0
        if completions.count == 1:
            if closes:
                self._parser = HttpRequestParser(completions)
            return True
        # It failed or stands inside of a message: either way this parser is spent.
        self._parser = HttpRequestParser(completions)
        return False

    @staticmethod
    def accepts_head(head: bytes, has_body: bool) -> bool:
        """Whether llhttp accepts this head and, like us, expects a body behind it or none.

        An Upgrade ends the message for llhttp at the head (H1): that agrees with a request without a body only.
        """
        completions = _Completions()
        try:
            HttpRequestParser(completions).feed_data(head)
        except HttpParserUpgrade:
            return not has_body
        except HttpParserError:
            return False
        return completions.count == (0 if has_body else 1)
