"""What follows from what is written, before it is checked: the second of the loader's three steps.

- ``stripPrefix: true`` becomes the prefix itself.
- A limit in a route or in a list is on unless it says otherwise (a single one of the server is off, as in GoGate); a
  route with a ``rateLimit`` of which nothing is enabled is exempt from the server's.
- Authentication gets its default algorithms, and the contents of the files it names: publicKeyFile, keysFile, usersFile
  (relative to the folder of the configuration), read once at load time. A problem in such a file is told with its name
  and line, never with its text.
- OpenAPI documents of backends that are files are read.
- What TLS needs, towards backends (backend_tls.py) and on listeners (listener_tls.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path as FilePath

import attrs

from gogate_py.config.backend_tls import resolve_backend_tls
from gogate_py.config.listener_tls import resolve_listener_tls
from gogate_py.config.named_files import NamedFiles
from gogate_py.config.openapi_document import UnusableDocument, read_document
from gogate_py.config.problems import Findings, Path
from gogate_py.config.schema import Auth, Config, RateLimit, Route
from gogate_py.config.traffic_values import WHOLE_PREFIX
from gogate_py.policy import credentials

_Entries = tuple[tuple[str, str], ...]


def resolve(config: Config, findings: Findings, folder: FilePath) -> Config:
    """The configuration with everything filled in that follows from what is written. Problems of files are added."""
    files = NamedFiles(folder, findings)
    config = resolve_backend_tls(config, findings, files.read)
    config = resolve_listener_tls(config, findings, files)
    server = config.server
    if server.auth is not None:
        server = attrs.evolve(server, auth=_auth(server.auth, ("server", "auth"), findings, files))
    if findings.given(("server", "rateLimit", 0)):
        server = attrs.evolve(server, rate_limit=_limits(server.rate_limit, ("server", "rateLimit"), findings))
    routes = []
    for number, written in enumerate(config.routes):
        path: Path = ("routes", number)
        route = attrs.evolve(written, rate_limit=_limits(written.rate_limit, (*path, "rateLimit"), findings))
        # What was inherited is the server's object: its files are read once, its problems told once.
        auth = server.auth
        if findings.given((*path, "auth")) and route.auth is not None:
            auth = _auth(route.auth, (*path, "auth"), findings, files)
        routes.append(attrs.evolve(
            route, auth=auth, strip_prefix=_strip_prefix(route), exempt=_exempt(route, path, findings),
            openapi_text=_openapi(route, path, findings, files)))
    return attrs.evolve(config, server=server, routes=tuple(routes), files=files.digests)


def _strip_prefix(route: Route) -> str:
    prefix = route.match.path_prefix if route.strip_prefix == WHOLE_PREFIX else route.strip_prefix
    if route.strip_prefix == WHOLE_PREFIX and not prefix:
        return WHOLE_PREFIX  # there is no prefix: told by the checks
    return "" if prefix == "/" else prefix


def _openapi(route: Route, path: Path, findings: Findings, files: NamedFiles) -> str:
    """The document of a route, where it is a file; one that cannot be used is a problem."""
    if "://" in route.openapi:
        return ""
    here: Path = (*path, "openapi")
    text = files.read(route.openapi, here)
    try:
        if text:
            read_document(text.encode())
    except UnusableDocument as error:
        findings.spoil(here)
        findings.add(here, f"{files.folder / route.openapi} {error}")
    return text


def _limits(limits: tuple[RateLimit, ...], path: Path, findings: Findings) -> tuple[RateLimit, ...]:
    """The limits with those on that do not say whether they are."""
    in_list = findings.given((*path, 0))
    return tuple(
        limit if findings.given((*path, number, "enabled") if in_list else (*path, "enabled"))
        else attrs.evolve(limit, enabled=True)
        for number, limit in enumerate(limits))


def _exempt(route: Route, path: Path, findings: Findings) -> bool:
    written = findings.given((*path, "rateLimit")) and findings.is_sound((*path, "rateLimit"))
    return written and not any(limit.enabled for limit in route.rate_limit)


def _auth(auth: Auth, path: Path, findings: Findings, files: NamedFiles) -> Auth:
    if not findings.was_read(path):
        return auth
    match auth.type:
        case "jwt":
            default = ("HS256",) if auth.secret else ("RS256",)
            return attrs.evolve(
                auth, algorithms=auth.algorithms or default,
                public_key=files.read(auth.public_key_file, (*path, "publicKeyFile")))
        case "api_key":
            written = _written(auth.keys, (*path, "keys"), findings, credentials.api_key_problem)
            written = tuple((name, digest.lower()) for name, digest in written)
            read = _parsed(files, auth.keys_file, (*path, "keysFile"), findings, credentials.parse_api_keys)
            _same_names(written, read, (*path, "keysFile"), findings)
            _same_keys(written + read, path, findings)
            return attrs.evolve(auth, api_keys=written + read)
        case "basic":
            users = _written(auth.users, (*path, "users"), findings, credentials.user_problem)
            read = _parsed(files, auth.users_file, (*path, "usersFile"), findings, credentials.parse_users)
            _same_names(users, read, (*path, "usersFile"), findings)
            return attrs.evolve(auth, basic_users=users + read)
    return auth


def _written(given: dict[str, str], path: Path, findings: Findings, problem_of: Callable[[str, str], str]) -> _Entries:
    """The credentials that stand in the configuration itself, each checked."""
    for name, value in given.items():
        problem = problem_of(name, value)
        if problem and findings.was_read((*path, name)):
            findings.spoil(path)
            findings.add((*path, name), problem)
    return tuple(given.items())


def _parsed(
    files: NamedFiles, name: str, path: Path, findings: Findings,
    parse: Callable[[str], tuple[_Entries, tuple[tuple[int, str], ...]]],
) -> _Entries:
    """The credentials of a file; every problem in it is told with its line."""
    entries, problems = parse(files.read(name, path))
    for line, message in problems:
        findings.spoil(path)
        findings.add_elsewhere(str(files.folder / name), line, path, message)
    if name and not entries and findings.was_read(path):
        findings.spoil(path)
        findings.add(path, f"{files.folder / name} has no entry: nobody could pass")
    return entries


def _same_names(written: _Entries, read: _Entries, path: Path, findings: Findings) -> None:
    """A name is in the configuration or in the file."""
    names = {name for name, _ in written}
    for name, _ in read:
        if name in names:
            findings.add(path, f"{name} is in this file and in the configuration, too")


def _same_keys(entries: _Entries, path: Path, findings: Findings) -> None:
    """Two keys that are equal: each file was looked at for itself, here is what they have in common."""
    seen: dict[str, str] = {}
    for name, digest in entries:
        first = seen.setdefault(digest, name)
        if first != name and findings.is_sound(path):
            findings.add(path, f"the keys of {first} and {name} are the same: nobody could tell who calls")
