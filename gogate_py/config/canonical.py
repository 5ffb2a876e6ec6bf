"""``gogate fmt``: the same file with every key and word in its canonical spelling.

The text is edited where the words stand (positions of YAML nodes), never written anew: comments, order, quotes, blank
lines and anchors stay because nobody touches them. Whatever might not be the same to everybody who uses it stays, too:

    a key that gogate does not know, or that is there twice in whatever spellings
    a value with variables, with a tag of its own, with escapes, over several lines, or that is not possible
    what an anchor shares between uses that would write it differently
    a key that is merged (<<) and overridden, unless all of its places change alike
    a further name of a key whose canonical one YAML 1.1 does not read as text (retryOn: "on" is true there)

The result is read by the loader and compared with what was there before anybody gets it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import attrs
import yaml
from yaml.resolver import Resolver

from gogate_py.config.canonical_values import spelled
from gogate_py.config.loader import understood
from gogate_py.config.positions import Entries, Entry, compose, has_foreign_tag, is_merge, is_null
from gogate_py.config.problems import Findings
from gogate_py.config.reader import ELSEWHERE
from gogate_py.config.schema import Config
from gogate_py.config.settings import (
    Group,
    GroupList,
    GroupMap,
    ListOf,
    NamedSetting,
    Shape,
    TextMap,
    known_keys,
    settings_of,
    spellings,
)
from gogate_py.config.values import Kind
from gogate_py.errors import ConfigError, GogateError

_TEXT: Final = "tag:yaml.org,2002:str"
_ANCHOR: Final = re.compile(r"(?:&\S+\s+)?")
_PLAIN: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:/-]*[A-Za-z0-9._/-])?")
_RESOLVER: Final[Any] = Resolver()
#: What cannot stand between quotes as it is.
_ESCAPED: Final = {"'": "'", '"': '"\\'}


class NotTheSame(GogateError):
    """The canonical spelling would have another meaning."""


def canonical(text: str, file: str) -> str:
    """The text in canonical spelling; ``file`` as for :func:`gogate_py.config.loader.load_text`.

    Problems of a configuration are no hindrance. Raises ConfigError for what is not YAML, and NotTheSame rather than
    return a text that would be understood differently.
    """
    findings = Findings(file, text)
    findings.code = "GG001"
    root = compose(text, findings)
    problems = findings.sorted_problems()
    if problems:
        raise ConfigError(list(problems))
    if root is None:
        return text
    speller = _Speller(text)
    speller.mapping(Config, root)
    result = _edited(text, speller.edits())
    if result != text and understood(result, file) != understood(text, file):
        raise NotTheSame("the canonical spelling would not mean the same here; please report this file as a bug")
    return result


@attrs.frozen
class _Edit:
    """What takes the place of the characters from ``start`` to ``end``."""

    start: int
    end: int
    text: str


def _edited(text: str, edits: list[_Edit]) -> str:
    parts, done = [], 0
    for edit in sorted(edits, key=lambda edit: edit.start):
        parts += [text[done : edit.start], edit.text]
        done = edit.end
    return "".join(parts) + text[done:]


@attrs.define
class _Word:
    """A scalar of the file, and how each of its uses would write it (an alias is one more use of the same node)."""

    node: yaml.ScalarNode
    wanted: set[str] = attrs.field(factory=set)

    @property
    def agreed(self) -> str:
        """What all uses want; as it is where they do not agree."""
        return next(iter(self.wanted)) if len(self.wanted) == 1 else self.node.value


class _Speller:
    """Walks the nodes as the reader does, and notes how every word should be written."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._entries = Entries(Findings("", text))
        self._words: dict[int, _Word] = {}
        self._ties: list[list[_Word]] = []
        self._merged: dict[int, list[yaml.ScalarNode]] = {}
        self._seen: set[tuple[int, int]] = set()

    def edits(self) -> list[_Edit]:
        """Every change that all uses agree on."""
        edits = {id(word.node): edit for word in self._words.values() if (edit := self._edit(word)) is not None}
        # One of a tie that stays can make others stay.
        left = -1
        while left != len(edits):
            left = len(edits)
            for tie in self._ties:
                if len({word.agreed if id(word.node) in edits else word.node.value for word in tie}) > 1:
                    for word in tie:
                        edits.pop(id(word.node), None)
        return list(edits.values())

    def _edit(self, word: _Word) -> _Edit | None:
        node, new = word.node, word.agreed
        start, end = node.start_mark.index, node.end_mark.index
        quotation = node.style or ""
        if new == node.value or quotation not in ("", "'", '"'):
            return None
        # Exactly what the node holds must stand there (no escapes, no folded lines, no tag), behind at most an anchor.
        old = f"{quotation}{node.value}{quotation}"
        before = self._text[start : end - len(old)]
        if self._text[end - len(old) : end] != old or not _ANCHOR.fullmatch(before):
            return None
        if not quotation:
            shown = new if _is_plain(new) else '"' + new.replace("\\", "\\\\").replace('"', '\\"') + '"'
        elif any(character in new for character in _ESCAPED[quotation]):
            return None
        else:
            shown = f"{quotation}{new}{quotation}"
        return _Edit(end - len(old), end, shown)

    def _want(self, node: yaml.Node, text: str) -> None:
        if isinstance(node, yaml.ScalarNode):
            self._words.setdefault(id(node), _Word(node)).wanted.add(text)

    def _keep(self, node: yaml.Node) -> None:
        self._want(node, node.value)

    def _first(self, node: yaml.Node, what: object) -> bool:
        """Whether a node is read as this for the first time: what is shared a thousand times is looked at once."""
        key = (id(node), id(what))
        new = key not in self._seen
        self._seen.add(key)
        return new

    # --- as the reader reads

    def mapping(self, cls: type[attrs.AttrsInstance], node: yaml.Node) -> None:
        """A mapping that becomes an instance of ``cls``."""
        if not isinstance(node, yaml.MappingNode) or has_foreign_tag(node):
            self._keep(node)
            return
        if not self._first(node, cls):
            return
        known = known_keys(cls)
        uses: dict[str, list[Entry]] = {}
        for entry in self._entries.of(node, ()):
            named = known.get(entry.key)
            if named is not None:
                uses.setdefault(named.attribute, []).append(entry)
                continue
            self._keep(entry.key_node)
            elsewhere = ELSEWHERE.get((cls, entry.key))
            if elsewhere is not None:
                self.mapping(elsewhere, entry.value)
        for entries in uses.values():
            for entry in entries:
                named = known[entry.key]
                self._want(entry.key_node, _key(named, entry.key) if len(entries) == 1 else entry.key)
                self._value(named.setting.shape, entry.value)
        self._tie_merged(node)

    def _tie_merged(self, node: yaml.MappingNode) -> None:
        """Keys that override each other by << are the same text, and must stay the same text."""
        if not any(is_merge(key) for key, _ in node.value):
            return
        same: dict[str, list[_Word]] = {}
        for key in self._keys(node):
            same.setdefault(key.value, []).append(self._words.setdefault(id(key), _Word(key)))
        self._ties += [words for words in same.values() if len(words) > 1]

    def _keys(self, node: yaml.MappingNode) -> list[yaml.ScalarNode]:
        """Every key of a mapping and of what it merges, overridden ones too, each once."""
        known = self._merged.get(id(node))
        if known is None:
            self._merged[id(node)] = known = []
            found: dict[int, yaml.ScalarNode] = {}
            for key, value in node.value:
                if is_merge(key):
                    for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                        if isinstance(source, yaml.MappingNode):
                            found |= {id(one): one for one in self._keys(source)}
                elif isinstance(key, yaml.ScalarNode):
                    found[id(key)] = key
            known += found.values()
        return known

    def _value(self, shape: Shape, node: yaml.Node) -> None:
        if not isinstance(node, yaml.ScalarNode) and not self._first(node, shape):
            return
        match shape:
            case Group():
                self._group(shape, node)
            case GroupList():
                single = shape.single and isinstance(node, yaml.MappingNode)
                for item in [node] if single else _items(node):
                    self._item(shape.scalar_key, shape.cls, item)
            case GroupMap():
                for entry in self._named(node):
                    self.mapping(shape.cls, entry.value)
            case TextMap():
                for entry in self._named(node):
                    self._value(shape.value, entry.value)
            case ListOf():
                for item in [node] if shape.scalar and isinstance(node, yaml.ScalarNode) else _items(node):
                    self._scalar(shape.kind, item)
            case _:
                self._scalar(shape, node)

    def _group(self, shape: Group, node: yaml.Node) -> None:
        none = shape.optional and not shape.scalar_key and isinstance(node, yaml.ScalarNode)
        if none and node.value.lower() == "none" and not has_foreign_tag(node):
            self._want(node, "none")
        else:
            self._item(shape.scalar_key, shape.cls, node)

    def _item(self, scalar_key: str, cls: type[attrs.AttrsInstance], node: yaml.Node) -> None:
        """A mapping, or the scalar that stands for one of its keys."""
        if not isinstance(node, yaml.ScalarNode) or not scalar_key or is_null(node):
            self.mapping(cls, node)
            return
        for named in settings_of(cls):
            if named.key == scalar_key:
                self._value(named.setting.shape, node)

    def _named(self, node: yaml.Node) -> Iterator[Entry]:
        """The entries of a mapping from names of the user's choice, which stay."""
        if isinstance(node, yaml.MappingNode):
            for entry in self._entries.of(node, ()):
                self._keep(entry.key_node)
                yield entry
            self._tie_merged(node)

    def _scalar(self, kind: Kind, node: yaml.Node) -> None:
        if not isinstance(node, yaml.ScalarNode) or has_foreign_tag(node) or is_null(node):
            self._keep(node)
        else:
            self._want(node, spelled(kind, node.value, bool(node.style)))


def _items(node: yaml.Node) -> list[yaml.Node]:
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _key(named: NamedSetting, written: str) -> str:
    """How a key is written: its canonical name, or the further name that was chosen if only that is safe."""
    if not _is_text(named.key):
        for alias in named.setting.aliases:
            if written in spellings(alias):
                return alias
    return named.key


def _is_text(text: str) -> bool:
    """Whether YAML 1.1 reads it as text where it stands without quotes."""
    return bool(_RESOLVER.resolve(yaml.ScalarNode, text, (True, False)) == _TEXT)


def _is_plain(text: str) -> bool:
    """Whether a word may stand without quotes; true and false are meant as such."""
    return text in ("true", "false") or bool(_PLAIN.fullmatch(text) and _is_text(text))
