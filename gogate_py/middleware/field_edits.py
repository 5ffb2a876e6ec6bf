"""Field edits: removing, setting and adding header fields, towards the backend and towards the client.

Always in the order remove, set, add, whatever the configuration file says first:

    remove    every line of the name goes
    set       every line of the name goes, one with the value comes
    add       one line with the value comes, others stay

A name means all of its spellings: another case, and for a CGI-like backend ``X_Debug`` and ``X.Debug`` (SECURITY.md
T5). Setting Host changes the Host that the backend sees and nothing else: routing is over, and X-Forwarded-Host keeps
the client's. A Host that comes out invalid (built from a path parameter) is refused with 400.

Values may hold variables, see rewriting.py. Which names may be edited is decided there as well, when the configuration
is read; nothing is checked a second time here but Host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from gogate_py.errors import Failure
from gogate_py.middleware.chain import Explained, Refusal, RequestView
from gogate_py.middleware.rewriting import Captures, Template, valid_template
from gogate_py.snapshot import FieldEdits
from gogate_py.wire.head_check import RequestHead
from gogate_py.wire.headers import VALUE
from gogate_py.wire.target import is_valid_host

_value: Final = re.compile(VALUE + rb"*").fullmatch
_BAD_HOST: Final = Refusal(Failure.BAD_HOST, "the Host for the backend is not a valid one", counted="host")


def valid_value(name: str, text: str, names: Iterable[str]) -> str:
    """What is wrong with the value of an edit of the field ``name``, in words; "" for nothing.

    ``names`` are the variables it may hold (rewriting.value_names).
    """
    wrong = valid_template(text, names)
    if wrong:
        return wrong
    raw = text.encode()
    if not _value(raw):
        return "a field value has no line breaks and no control characters"
    if raw != raw.strip(b" \t"):
        return "a field value neither begins nor ends with a blank"
    template = Template(text)
    if name.lower() == "host" and template.constant is not None and not is_valid_host(template.constant):
        return "not a host; write name or name:port"
    return ""


class _Edits:
    """Edits as they are applied to a list of fields: which lines go, which come."""

    __slots__ = ("coming", "constant", "goes")

    def __init__(self, edits: FieldEdits, captures: Captures) -> None:
        # Two spellings of one name are one field, and the last value counts.
        placed = {name.lower(): (name, value) for name, value in edits.set}
        gone = dict.fromkeys((*(name.lower() for name in edits.remove), *placed))
        # One expression for all: a seventh of the cost of folding every name of a message.
        spelled = (re.escape(name.encode()).replace(rb"\-", b"[^A-Za-z0-9]") for name in gone)
        self.goes = re.compile(rb"(?i:%b)" % b"|".join(spelled)).fullmatch if gone else None
        self.coming = [(name.encode(), Template(value, captures)) for name, value in (*placed.values(), *edits.add)]
        # Rendered once where no value depends on the request.
        self.constant = (
            [(name, template.constant or b"") for name, template in self.coming]
            if all(template.constant is not None for _, template in self.coming)
            else None
        )

    def apply(self, request: RequestView, fields: list[tuple[bytes, bytes]]) -> None:
        """Change ``fields`` in place."""
        goes = self.goes
        if goes is not None:
            fields[:] = [field for field in fields if goes(field[0]) is None]
        if self.constant is not None:
            fields += self.constant
        else:
            fields += [(name, template.render(request)) for name, template in self.coming]


class RequestEdits:
    """The edits of one route's requests, applied to the checked head before it is forwarded."""

    name = "request_headers"

    __slots__ = ("_edits", "_host", "_said")

    def __init__(self, edits: FieldEdits, captures: Captures) -> None:
        """``captures``: rewriting.compile_captures of the route's path."""
        hosts = [value for name, value in (*edits.set, *edits.add) if name.lower() == "host"]
        self._host = Template(hosts[-1], captures) if hosts else None
        others = FieldEdits(
            remove=edits.remove,
            set=tuple(item for item in edits.set if item[0].lower() != "host"),
            add=tuple(item for item in edits.add if item[0].lower() != "host"),
        )
        self._edits = _Edits(others, captures)
        self._said = edits

    def __call__(self, request: RequestView, head: RequestHead) -> Refusal | None:
        """Change the head in place, or refuse a Host that is none."""
        if self._host is not None:
            host = self._host.render(request)
            if not is_valid_host(host):
                return _BAD_HOST
            head.host = host
        self._edits.apply(request, head.fields)
        return None

    def explain(self, request: RequestView) -> Explained:
        """Which fields change. Values are left out: they may be secrets of the backend."""
        said = self._said
        facts = {
            "remove": list(said.remove),
            "set": [name for name, _ in said.set],
            "add": [name for name, _ in said.add],
        }
        text = "; ".join(f"{verb} {', '.join(names)}" for verb, names in facts.items() if names)
        if self._host is not None and not is_valid_host(self._host.render(request)):
            return Explained(_BAD_HOST, "the Host for the backend would not be valid", facts)
        return Explained(None, text or "nothing", facts)


class ResponseEdits:
    """The edits of one route's answers (a ResponseFilter), those of the gateway included."""

    __slots__ = ("_edits",)

    def __init__(self, edits: FieldEdits, captures: Captures) -> None:
        """``captures``: rewriting.compile_captures of the route's path."""
        self._edits = _Edits(edits, captures)

    def __call__(self, request: RequestView, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        """Change ``fields`` in place."""
        self._edits.apply(request, fields)
