r"""Kinds of scalar values → JSON Schema (2020-12), for a value as an editor sees it: after YAML, before gogate.

A kind reads text; YAML has made numbers and booleans of some texts by then. So a kind has a schema for each form in
which its texts may arrive. None is narrower than the kind, so that no file is refused that gogate takes; where a
pattern could not say all (regular expressions, bits of a network, the range of a text like "90s"), it is wider.

Patterns are what Python and ECMA-262 both understand: no \Z, no flags.
"""

from __future__ import annotations

import re
from typing import Any, Final

from gogate_py.config.backend_tls_schema import ServerName
from gogate_py.config.names import (
    METHODS,
    BackendAddress,
    Cidr,
    FieldName,
    HostPattern,
    ListenAddress,
    Method,
    Name,
    PathPattern,
    PathPrefix,
    StatusRanges,
)
from gogate_py.config.store_values import Store
from gogate_py.config.traffic_values import (
    IDEMPOTENT,
    Algorithm,
    Condition,
    DocumentSource,
    Factor,
    FailureStatuses,
    FailureThreshold,
    FieldNameOrAll,
    JwksUrl,
    KeySpec,
    LongText,
    MethodOrAll,
    OneOf,
    Origin,
    Percent,
    PlainText,
    RetryMethod,
    RetryReason,
    Secret,
    ServiceUrl,
    StickyKey,
    StripPrefix,
)
from gogate_py.config.values import (
    SIZE_UNITS,
    BadValue,
    Boolean,
    Choice,
    Duration,
    Fraction,
    Integer,
    Kind,
    Number,
    Size,
    Text,
    Workers,
    squash,
)
from gogate_py.middleware.request_keys import NAMED_KEYS, PLAIN_KEYS
from gogate_py.policy.signature_keys import KINDS

Schema = dict[str, Any]

#: A value that holds a variable, or $$: what it will be is not known.
VARIABLE: Final[Schema] = {
    "type": "string", "pattern": r"\$\$|\$\{[A-Za-z_][A-Za-z0-9_]*(?::-[^{}]*)?\}", "description": "a variable"}

_NUMBER: Final = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_INTEGER: Final = r"[+-]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)"
_DURATION: Final = r"[+-]?(?:(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+"
_STATUSES: Final = r" *{0}[0-9]{{2}}(?: ?- ?{0}[0-9]{{2}})? *"
_VISIBLE: Final = r"[^\x00-\x1f\x7f]"


def value_schema(kind: Kind) -> Schema:
    """What a value of a kind may be, variables included; the forms to be offered come first."""
    return _any_of([*_forms(kind), {"$ref": "#/$defs/variable"}])


def name_schema(kind: Kind) -> Schema:
    """What a key of the user's choice may be: always text, and never a variable."""
    pattern = _pattern(kind)
    return {"minLength": 1, **({"pattern": f"^(?:{pattern})$"} if pattern else {})}


def _any_of(forms: list[Schema]) -> Schema:
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def _forms(kind: Kind) -> list[Schema]:
    match kind:
        case Boolean():
            return [{"type": "boolean"}]
        case Choice():
            return _words(kind.options, (*kind.options, *kind.aliases))
        case Duration() | Number():
            pattern = f"{_DURATION}|{_NUMBER}" if isinstance(kind, Duration) else _NUMBER
            return [{"type": "number", "minimum": kind.low, "maximum": kind.high}, _text(pattern)]
        case Size():
            units = "|".join(map(ignoring_case, SIZE_UNITS))
            return [_integer(kind.low, kind.high), _text(rf"[0-9]+(?:\.[0-9]+)? ?(?:{units})?")]
        case Workers():
            return [{"enum": ["auto"]}, _integer(1, kind.high), _text(f"{ignoring_case('auto')}|{_INTEGER}")]
        case Percent():
            return [_integer(kind.low, kind.high), _text(f"{_INTEGER} ?%?")]
        case Integer():
            return [_integer(kind.low, kind.high), _text(_INTEGER)]
        case FailureThreshold():
            return [_integer(kind.low, kind.high), _text(rf"{_INTEGER}|[0-9]{{1,3}}(?:\.[0-9]{{1,6}})? ?%")]
        case Factor():
            return [{"enum": [0]}, {"type": "number", "minimum": 1, "maximum": kind.high},
                    _text(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")]
        case Fraction():
            return [{"type": "number", "minimum": 0, "maximum": 1}, _text(f"{_NUMBER} *%?")]
        case OneOf():
            return [{"enum": list(kind.numbers)}, {"enum": [str(number) for number in kind.numbers]}]
        case RetryReason():
            words = tuple(RetryReason.WORDS.options)
            return [*_words(words, (*words, *RetryReason.WORDS.aliases)), _integer(500, 599), _text("5[0-9]{2}")]
        case RetryMethod():
            return _words((IDEMPOTENT, *METHODS), (IDEMPOTENT,))
        case MethodOrAll():
            return [{"enum": [*METHODS, "*"]}]
        case Method():
            return [{"enum": list(METHODS)}]
        case Algorithm():
            return _words(tuple(KINDS), tuple(KINDS))
        case StatusRanges():
            first, low, high = ("[45]", 400, 599) if isinstance(kind, FailureStatuses) else ("[1-5]", 100, 599)
            one = _STATUSES.format(first)
            return [_text(f"{one}(?:,{one})*"), _integer(low, high)]
        case StickyKey():
            return [{"enum": ["cookie", "ip"]},
                    _text(f"{_case('cookie', 'ip')}|(?:{_case('header', 'jwt')}):{_VISIBLE}+")]
        case KeySpec():
            plain = "|".join((_case(*PLAIN_KEYS), *map(_loose, ("apikey", "clientip", "remoteip"))))
            return [{"enum": [*PLAIN_KEYS, "basic:username"]},
                    _text(f"{plain}|(?:{_case(*NAMED_KEYS)}):{_VISIBLE}+")]
        case StripPrefix():
            return [{"type": "boolean"}, _text("(?:/.*)?")]
    return _texts(kind)


def _texts(kind: Kind) -> list[Schema]:
    """A kind that is text. YAML's numbers and booleans are among its values if their texts are."""
    pattern = _pattern(kind)
    types = ["string", *(name for name, text in (("number", "1"), ("boolean", "true")) if _takes(kind, text))]
    form: Schema = {"type": types[0] if len(types) == 1 else types}
    form |= {"pattern": f"^(?:{pattern})$"} if pattern else {}
    form |= {"minimum": 0} if _takes(kind, "1") and not _takes(kind, "-1") else {}
    return [form]


def _takes(kind: Kind, text: str) -> bool:
    try:
        kind.parse(text, False)
    except BadValue:
        return False
    return True


def _pattern(kind: Kind) -> str:
    match kind:
        case Text():
            return f"(?:{kind.pattern})?"
        case Name():
            return "[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
        case ListenAddress():
            return r"(?:unix:/.*|[^/\s]*:[0-9]{1,5})?"
        case BackendAddress():
            return rf"(?:{ignoring_case('http')}[sS]?)://[^/?@\s]+/?|unix:/.*|[^/\s]+:[0-9]{{1,5}}"
        case Cidr():
            return "[0-9A-Fa-f.:]+(?:%[^/]+)?(?:/[0-9.]+)?"
        case FieldNameOrAll():
            return r"[A-Za-z0-9-]{1,256}|\*"
        case FieldName():
            return "[A-Za-z0-9-]{0,256}" if kind.optional else "[A-Za-z0-9-]{1,256}"
        case HostPattern() | ServerName():
            return r"(?:\*\.)?[A-Za-z0-9._:%\[\]-]*"
        case PathPattern() | PathPrefix():
            return "(?:/.*)?"
        case PlainText() | Condition():
            return f"{_VISIBLE}*"
        case LongText() | Secret():
            return ""
        case Origin():
            return r"\*|[a-z][a-z0-9+.-]*://[a-z0-9._:\[\]-]+"
        case DocumentSource():
            return r"[\s\S]*\S[\s\S]*"
        case JwksUrl() | ServiceUrl():
            return rf"{ignoring_case('http')}[sS]?://[^\s]+"
        case Store():
            return rf"{ignoring_case('memory')}|file:///\S+"
    raise TypeError(f"{type(kind).__name__} has no JSON Schema")


def _text(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^(?:{pattern})$"}


def _integer(low: float, high: float) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def _words(offered: tuple[str, ...], taken: tuple[str, ...]) -> list[Schema]:
    """Words of a closed set; numbers among them, which YAML does not take for text, too."""
    numbers = [float(word) for word in offered if re.fullmatch(r"[0-9]+\.[0-9]+", word)]
    every = dict.fromkeys(squash(word) for word in taken)
    return [{"enum": [*offered, *numbers]}, _text("|".join(map(_loose, every)))]


def _loose(word: str) -> str:
    """A pattern for a word in any case, with any separators."""
    return "[-_ ]*" + "".join(f"{ignoring_case(character)}[-_ ]*" for character in squash(word))


def _case(*words: str) -> str:
    return "|".join(map(ignoring_case, words))


def ignoring_case(word: str) -> str:
    """A pattern for a word in any case."""
    return "".join(
        f"[{character.lower()}{character.upper()}]" if character.isalpha() else re.escape(character)
        for character in word)
