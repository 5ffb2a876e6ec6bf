"""Credentials as an operator writes them: key and user files, secrets, public keys, key set addresses.

    keysFile     name:SHA-256 of the key in hex       gogate hash api-key makes such a line
    usersFile    name:bcrypt hash ($2a$, $2b$, $2y$)   gogate hash password, or htpasswd -B

Empty lines and lines that begin with # are passed over. A file is judged as a whole: every problem comes with its line.
A message never repeats what stands behind the colon: it may be a key that was written there in clear. Pure: whoever
reads files calls with their text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from gogate_py.policy import signature_keys

Entries = tuple[tuple[str, str], ...]
#: (line number from 1, what is wrong)
Problems = tuple[tuple[int, str], ...]

#: bcrypt's cost is the logarithm of its rounds: 14 takes about a second of a core per password.
MAX_COST: Final = 14
MIN_COST: Final = 4
#: What bcrypt looks at; a longer password would be cut without a word (RFC 7617 allows any length).
MAX_PASSWORD: Final = 72
MAX_NAME: Final = 128

_EMPTY_KEY: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of nothing

_is_digest: Final = re.compile(r"[0-9A-Fa-f]{64}").fullmatch
_is_bcrypt: Final = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}").fullmatch
_is_plain_name: Final = re.compile(r"[!-9;-~]+").fullmatch
_OTHER_HASHES: Final = (
    ("$apr1$", "an Apache MD5 hash"),
    ("$1$", "an MD5 hash"),
    ("$5$", "a SHA-256-crypt hash"),
    ("$6$", "a SHA-512-crypt hash"),
    ("$argon2", "an Argon2 hash"),
    ("$2", "a damaged bcrypt hash"),
    ("{SHA}", "an unsalted SHA-1 hash"),
)


def parse_api_keys(text: str) -> tuple[Entries, Problems]:
    """The (name, lower-case hex SHA-256) of each line, and every problem."""
    entries, problems = _parse(text, api_key_problem)
    seen: dict[str, str] = {}
    for line, (name, digest) in entries:
        lower = digest.lower()
        if lower in seen:
            problems.append((line, f"the key of {name} is that of {seen[lower]}, too: nobody could tell who calls"))
        seen.setdefault(lower, name)
    return tuple((name, digest.lower()) for _, (name, digest) in entries), tuple(sorted(problems))


def parse_users(text: str) -> tuple[Entries, Problems]:
    """The (user name, bcrypt hash) of each line of an htpasswd file, and every problem."""
    entries, problems = _parse(text, user_problem)
    return tuple(entry for _, entry in entries), tuple(sorted(problems))


def api_key_problem(name: str, digest: str) -> str:
    """What is wrong with one API key as it is stored, or ""."""
    if not name or len(name) > MAX_NAME or _is_plain_name(name) is None:
        return f"a key's name has 1 to {MAX_NAME} visible ASCII characters and no colon"
    if _is_digest(digest) is None:
        return f"{name} is not followed by a SHA-256 in hex (64 digits); gogate hash api-key makes one"
    if digest.lower() == _EMPTY_KEY:
        return f"{name} has the SHA-256 of an empty key"
    return ""


def name_problem(name: str) -> str:
    """What is wrong with a user's name, or ""."""
    if not name or len(name) > MAX_NAME or not name.isprintable() or ":" in name or name[0] in "# " or name[-1] == " ":
        return f"a user name has 1 to {MAX_NAME} printable characters, no colon, no # first and no blank at its ends"
    return ""


def user_problem(name: str, hashed: str) -> str:
    """What is wrong with one user as stored, or ""."""
    problem = name_problem(name)
    if problem:
        return problem
    match = _is_bcrypt(hashed)
    if match is None:
        kind = next((what for begin, what in _OTHER_HASHES if hashed.startswith(begin)), "no hash that is known")
        return f"{name} has {kind}; only bcrypt is accepted: gogate hash password, or htpasswd -B"
    cost = int(match[1])
    if not MIN_COST <= cost <= MAX_COST:
        return f"{name} has a bcrypt cost of {cost}; {MIN_COST} to {MAX_COST} are allowed ({MAX_COST} takes about 1 s)"
    return ""


def check_algorithms(algorithms: Sequence[str], source: str) -> str:
    """What is wrong with a route's algorithms for the kind of key it has, or "".

    ``source``: secret, public_key or jwks.
    """
    if not algorithms:
        return "at least one algorithm is needed"
    for name in algorithms:
        if name.lower() == "none":
            return "none means tokens without a signature: that is never accepted"
        if name not in signature_keys.KINDS:
            return f"{name} is not an algorithm that is known here; known: {', '.join(signature_keys.KINDS)}"
        if ("secret" in signature_keys.KINDS[name]) != (source == "secret"):
            needs = "a secret, which a public key must never serve as" if source != "secret" else "a public key"
            return f"{name} needs {needs}"
    return ""


def check_secret(secret: str | bytes, algorithms: Sequence[str]) -> str:
    """Why a secret must not be used for these HS* algorithms, or ""."""
    return signature_keys.secret_problem(secret.encode() if isinstance(secret, str) else secret, algorithms)


def check_public_key(pem: str, algorithms: Sequence[str]) -> str:
    """What is wrong with a PEM public key for these algorithms, or ""."""
    try:
        key = signature_keys.pem_key(pem)
    except ValueError as error:
        return str(error)
    for name in algorithms:
        if name not in key.algorithms:
            article = "a" if key.kind.startswith("P") else "an"
            possible = ", ".join(sorted(key.algorithms))
            return f"is {article} {key.kind} key, which {name} cannot be used with; possible: {possible}"
    return ""


def check_jwks_url(url: str) -> str:
    """What is wrong with the address of a key set, or "": https, or http to this machine (SECURITY.md T24)."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "has characters that a URL does not have"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("https", "http") or not host or port == 0:
        return "is not a URL like https://auth.example.com/.well-known/jwks.json"
    if parts.username is not None or parts.password is not None or parts.fragment:
        return "must not have a user, a password or a fragment"
    if parts.scheme == "http" and not is_loopback(host):
        return "must be https: whoever can change the keys on the way can sign any token (http only to this machine)"
    return ""


def is_loopback(host: str) -> bool:
    """Whether a URL's host is this machine: localhost, or an address of the loopback networks."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parse(
    text: str, problem_of: Callable[[str, str], str]
) -> tuple[list[tuple[int, tuple[str, str]]], list[tuple[int, str]]]:
    """(line number, entry) of the good lines, and the problems of the others. Lines end in LF or CRLF."""
    entries: list[tuple[int, tuple[str, str]]] = []
    problems: list[tuple[int, str]] = []
    first: dict[str, int] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = line.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon:
            problems.append((number, "is not name:hash"))
            continue
        problem = problem_of(name, value)
        if not problem and name in first:
            problem = f"{name} is there already, in line {first[name]}"
        if problem:
            problems.append((number, problem))
            continue
        first[name] = number
        entries.append((number, (name, value)))
    return entries, problems
