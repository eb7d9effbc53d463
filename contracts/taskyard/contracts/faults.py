"""What a decoder complains of, said for who wrote the JSON: what is wrong, where, and what would be right. Pure.

The decoder speaks of its own types and of regular expressions. Here is the one place where that becomes words for people;
what it may say of any field of a command is in the tests, so that a new field cannot bring a text that nobody understands.
"""

import re
from collections.abc import Callable, Iterable

import msgspec

from taskyard.contracts.events import FieldError
from taskyard.contracts.nearest import nearest
from taskyard.contracts.values import NAME_PATTERN, NO_NUL_PATTERN, QUEUE_PATTERN, UUID7_PATTERN

TOO_DEEP = "nested too deeply"
NAMES_TOLD_MAX = 15
SHOWN_CHARACTERS_MAX = 40

OF_ANOTHER_FORM = "has a form that is not allowed"
_OF_THE_LIBRARY = ("Expected ", "Invalid ", "Object ")

_QUOTES = "'\""
_PATH = re.compile(r"^(?P<message>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`)?$", re.DOTALL)
_FORMS = {
    UUID7_PATTERN: "must be a UUIDv7 in lower case",
    NAME_PATTERN: "must be 1 to 63 lower-case letters, digits, - and _, and begin with a letter or digit",
    QUEUE_PATTERN: "must be 1 to 128 lower-case letters, digits, - _ . and /, and begin with a letter or digit",
    NO_NUL_PATTERN: "must not contain a NUL character",
    r"^/[^\x00]*$": "must be an absolute path: begin it with /",
    r"^[A-Za-z_][A-Za-z0-9_-]*$(?!\n)": "must be letters, digits, - and _, and begin with a letter or _",
    r"^[A-Za-z_][A-Za-z0-9_]*$(?!\n)": "must be letters, digits and _, and begin with a letter or _",
}
_CHOICE = re.compile(r"\^\((?P<words>[a-z0-9|-]+)\)\$\(\?!\\n\)")
_TYPES = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
    "datetime": "a time such as 2030-01-31T08:00:00Z",
}
_LENGTHS = {"str": ("character", "characters"), "array": ("element", "elements"), "object": ("entry", "entries")}
_BOUNDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}


def decoding_fault(error: Exception, prefix: str, fields: Iterable[str] = ()) -> FieldError:
    """The fault that a decoder's error tells, with the path of the field below `prefix`.

    `fields` are the names that the object may have of which an unknown field was told.
    """
    if isinstance(error, RecursionError):
        return FieldError(path=prefix, message=TOO_DEEP)
    if not isinstance(error, msgspec.ValidationError):
        return FieldError(path=prefix, message=f"not valid JSON: {not_json(error)}")
    found = _PATH.match(str(error))
    assert found is not None  # it takes every text
    path = (found["path"] or "").lstrip(".")
    for form, told in ((_MISSING, "is required"), (_UNKNOWN, "unknown field")):
        if named := form.match(found["message"]):
            field = named["field"]
            path = f"{path}.{field}" if path else field
            message = told + _meant(field, fields) if form is _UNKNOWN else told
            break
    else:
        message = in_words(found["message"])
        message = f"each name in it {message}" if found["key"] else message
    return FieldError(path=".".join(part for part in (prefix, path) if part), message=message)


def not_json(error: Exception) -> str:
    """Why bytes are no JSON, from the error that a decoder raised for them."""
    if isinstance(error, UnicodeDecodeError):
        return "the text is not UTF-8"
    told = str(error)
    if told == "Input data was truncated":
        return "it ends too early, or is empty"
    return told.removeprefix("JSON is malformed: ")[:200]


def shown(text: str) -> str:
    """What somebody wrote, in quotes, as much of it as may stand in a sentence."""
    return f'"{text}"' if len(text) <= SHOWN_CHARACTERS_MAX else f'"{text[:SHOWN_CHARACTERS_MAX]}…"'


def form_of(pattern: str) -> str:
    """What a pattern asks for, said for people."""
    if choice := _CHOICE.fullmatch(pattern):
        return f"must be {_either(choice['words'].split('|'))}"
    return _FORMS.get(pattern, OF_ANOTHER_FORM)


def _meant(field: str, fields: Iterable[str]) -> str:
    names = list(fields)
    if not names:
        return ""
    known = ", ".join(names[:NAMES_TOLD_MAX])
    return nearest(field[:SHOWN_CHARACTERS_MAX], names) or f"; there are {known}"


def _type(match: re.Match[str]) -> str:
    expected = _either([_TYPES.get(each, "of another type") for each in match["expected"].split(" | ")])
    return f"must be {expected}, not {_TYPES.get(match['got'], 'this')}"


def _length(match: re.Match[str]) -> str:
    count, (one, many) = int(match["count"]), _LENGTHS[match["type"]]
    if match["sign"] == ">=" and count == 1:
        return "must not be empty"
    return f"must have {_BOUNDS[match['sign']]} {count} {one if count == 1 else many}"


def _bound(match: re.Match[str]) -> str:
    return f"must be {_BOUNDS[match['sign']]} {match['bound'].removesuffix('.0')}"


def _either(words: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


_MISSING = re.compile(r"^Object missing required field `(?P<field>[^`]*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<field>.*)`$", re.DOTALL)
_SAID: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"Expected `(?P<expected>[^`]*)`, got `(?P<got>[^`]*)`"), _type),
    (re.compile(r"Expected `(?P<type>str|array|object)` of length (?P<sign>[<>]=) (?P<count>\d+)"), _length),
    (re.compile(r"Expected `(?:int|float)` (?P<sign>[<>]=?) (?P<bound>\S+)"), _bound),
    (
        re.compile(r"Expected `str` matching regex (?P<pattern>.*)", re.DOTALL),
        lambda match: _form_of_shown(match["pattern"]),
    ),
    (re.compile(r"Expected `datetime` with a timezone component"), lambda _: "needs a zone: end it with Z or +02:00"),
    (re.compile(r"Invalid RFC3339 encoded datetime"), lambda _: f"must be {_TYPES['datetime']}"),
    (
        re.compile(r"Invalid enum value (?P<value>.*)", re.DOTALL),
        lambda match: f"{shown(match['value'].strip(_QUOTES))} is not one of the values that are allowed",
    ),
    (re.compile(r"(?:Number|Integer value) out of range"), lambda _: "is a number that is too large"),
)
"""The texts of msgspec, and what is said in their place."""


def _form_of_shown(pattern: str) -> str:
    return _SHOWN_FORMS.get(pattern) or form_of(pattern[1:-1].replace(r"\\", "\\"))


_SHOWN_FORMS = {repr(pattern): words for pattern, words in _FORMS.items()}


def in_words(text: str) -> str:
    """What a decoder said of one value, for people; its path is told apart from that."""
    for form, said in _SAID:
        if match := form.fullmatch(text):
            return said(match)
    # What a kind says of its own input is for people already.
    return OF_ANOTHER_FORM if text.startswith(_OF_THE_LIBRARY) else text.replace("`", "")
