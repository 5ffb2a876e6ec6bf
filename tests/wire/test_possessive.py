"""Where possessive repeats of groups cannot be relied on, ordinary ones mean the same."""

from __future__ import annotations

import subprocess
import sys

from doubles.gateway import ROOT

#: Before any expression is made of them, they are what they would be on an older Python.
SCRIPT = """
import sys
import pytest
from gogate_py.wire import possessive
possessive.STAR, possessive.PLUS, possessive.MAYBE = b"*", b"+", b"?"
sys.exit(pytest.main([*sys.argv[1:], "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]))
"""
FILES = ("test_fast_head", "test_freshness", "test_headers", "test_head_check", "test_target", "test_trace_context")


def test_the_proofs_hold_with_ordinary_repeats() -> None:
    """Everything that is said of heads, fields, targets and directives is so on a Python before 3.11.5, too."""
    names = [f"tests/wire/{name}.py" for name in FILES]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *names], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
