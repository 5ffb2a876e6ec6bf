"""Possessive repeats of groups in regular expressions, where they can be relied on.

A possessive repeat gives nothing back: what does not match fails at once. Before 3.11.5 CPython's ``re`` takes one
whose group has a choice inside for another expression (gh-106052): it refuses what matches, or matches what it must
not. Debian 12 has such a Python. There the repeat is an ordinary one. The expressions here are written so that this is
the same language, each repetition having only one way to match; what fails may be looked at once more for each
repetition, which is linear, too. Repeats of one character or one set are right everywhere.
"""

from __future__ import annotations

import re
from typing import Final

#: Whether this Python has it right.
RELIABLE: Final = re.fullmatch(rb"(?:ab?c)*+a", b"aca") is not None

#: What follows a group: any number of times, at least once, at most once.
STAR, PLUS, MAYBE = (b"*+", b"++", b"?+") if RELIABLE else (b"*", b"+", b"?")
