"""Requests, each made from the OpenAPI document, a seed and its number: the same again whenever these are the same.

About half of all values are what the document asks for, so that requests get past the first check; the others are what
breaks programs: numbers without end, nesting, text that is none, the wrong type, too much, nothing.
"""

import json
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, cast
from urllib.parse import quote_from_bytes

from msgspec import Struct

NESTED_MAX = 30_000
LONG_TEXT = 70_000
DEPTH_MAX = 6
"""How deep a value is made by the document, which may name itself."""
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "STEAL")
NASTY_TEXTS = (
    b"",
    b"\x00",
    b"a\x00b",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    "\u202e\U0001f4a5\ufeff".encode(),
    b"x" * LONG_TEXT,
    b"../../etc/passwd",
    b"%00%ff%",
    b"'; DROP TABLE tasks; --",
    b"\r\nX-Injected: 1",
    b"${jndi:ldap://x}",
    b"*.>",
    b"-1",
    b"9" * 400,
    b"9" * 5_000,
    b"1.9999",
    b"99999999999999999999.1",
    b"1e400",
    b"NaN",
    b"2026-02-30T25:61:61Z",
    b"0001-01-01T00:00:00+23:59",
    b"true",
    b"null",
    b"[]",
)
NASTY_JSON = (
    b"null",
    b"true",
    b"0",
    b"-1",
    b"1e400",
    b"-0.0",
    b"1.5",
    b"9" * 400,
    b"9" * 5_000,
    b"9223372036854775808",
    b'"\\ud800"',
    b'"\\u0000"',
    b'"\xff"',
    b'""',
    b'"' + b"x" * LONG_TEXT + b'"',
    b"[]",
    b"{}",
    b"[" + b"0," * 5_000 + b"0]",
    b'{"":{"":{"":0}}}',
    b'{"a":1,"a":2}',
    b"[" * 150 + b"]" * 150,
    b"[" * NESTED_MAX + b"]" * NESTED_MAX,
    b'{"a":' * 150 + b"0" + b"}" * 150,
    b"NaN",
    b"nonsense",
)
HEADERS = (
    (b"Content-Type", b"text/xml"),
    (b"Content-Type", b"application/json; charset=\xff"),
    (b"Content-Encoding", b"gzip"),
    (b"Accept", b"\xff/\xfe"),
    (b"Accept-Encoding", b"x" * 5_000),
    (b"Last-Event-ID", b"99999999999.1"),
    (b"Last-Event-ID", b"\xff"),
    (b"traceparent", b"00-" + b"0" * 32 + b"-" + b"f" * 16 + b"-01"),
    (b"traceparent", b"\xff" * 60),
    (b"Cookie", b"a=b; \xff"),
    (b"X-Forwarded-For", b"' OR 1=1"),
    (b"Origin", b"null"),
    (b"Range", b"bytes=0-99999999999999999999"),
    (b"Upgrade", b"websocket"),
    (b"X-HTTP-Method-Override", b"DELETE"),
)


class Request(Struct, frozen=True, kw_only=True):
    """One request as it is sent; `route` is its method and template. `excused` are errors that the API's
    documentation names for it: a position or a moment that is not reached in time, and too many questions about the past.
    """

    number: int
    route: str
    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    excused: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """Its bytes."""
        lines = [b"%s %s HTTP/1.1" % (self.method, self.target), *(b"%s: %s" % header for header in self.headers)]
        return b"\r\n".join([*lines, b"", b""]) + self.body


class Maker:
    """Makes requests to the API that this document describes, about these tasks, with these tokens."""

    def __init__(self, document: Mapping[str, Any], *, seed: int, tokens: Sequence[str], tasks: Sequence[str]) -> None:
        self._seed = seed
        self._tokens = tuple(tokens)
        self._tasks = tuple(tasks)
        self._schemas: Mapping[str, Any] = document.get("components", {}).get("schemas", {})
        self._operations = [
            (method.upper(), path, operation)
            for path, item in sorted(document["paths"].items())
            for method, operation in sorted(item.items())
            if method in {"get", "post", "put", "patch", "delete"}
        ]

    @property
    def routes(self) -> list[str]:
        """Every route of the document."""
        return [f"{method} {path}" for method, path, _ in self._operations]

    def make(self, number: int) -> Request:
        """The request of that number."""
        random = Random(f"{self._seed}:{number}")
        method, path, operation = self._operations[number % len(self._operations)]
        said = random.choice(METHODS) if random.random() < 0.03 else method
        query = self._query(random, operation)
        body = self._body(random, operation) if method == "POST" or random.random() < 0.02 else b""
        target = self._path(random, path) + (b"?" + query if query else b"")
        headers = [(b"Host", b"x"), (b"Content-Length", b"%d" % len(body)), *self._headers(random)]
        return Request(
            number=number,
            route=f"{method} {path}",
            method=said.encode(),
            target=target,
            headers=tuple(headers),
            body=body,
            excused=(503, 504) if b"at=" in query else (504,) if b"after=" in query else (),
        )

    def _path(self, random: Random, path: str) -> bytes:
        parts: list[bytes] = []
        for part in path.split("/"):
            name = part.strip("{}") if part.startswith("{") else None
            if name is None:
                parts.append(part.encode())
            elif name.startswith("task") and random.random() < 0.7:
                parts.append(random.choice(self._tasks).encode())
            elif random.random() < 0.7:
                parts.append(random.choice((b"default", b"prod", b"worker-1")))
            else:
                parts.append(quote_from_bytes(random.choice(NASTY_TEXTS)[:2_000]).encode())
        return b"/".join(parts)

    def _query(self, random: Random, operation: Mapping[str, Any]) -> bytes:
        pairs: list[bytes] = []
        for parameter in operation.get("parameters", ()):
            if parameter["in"] != "query" or random.random() < 0.6:
                continue
            name, many = parameter["name"].encode(), random.choice((1, 1, 1, 2, 40))
            pairs.extend(name + b"=" + self._parameter(random, parameter) for _ in range(many))
        if random.random() < 0.05:
            pairs.append(quote_from_bytes(random.choice(NASTY_TEXTS)[:500]).encode() + b"=1")
        return b"&".join(pairs)[:20_000]

    def _parameter(self, random: Random, parameter: Mapping[str, Any]) -> bytes:
        if random.random() < 0.5:
            return quote_from_bytes(random.choice(NASTY_TEXTS)[:2_000]).encode()
        if parameter["name"] in {"after", "at", "from", "cursor"}:
            return random.choice((b"1.0", b"2.0", b"0", b"1", b"7.3", b"2026-01-01T00:00:00Z"))
        value = self._value(random, parameter.get("schema", {}), 0)
        value = random.choice(cast("list[Any]", value)) if isinstance(value, list) and value else value
        text = value if isinstance(value, str) else json.dumps(value)
        return quote_from_bytes(text.encode(errors="replace")).encode()

    def _headers(self, random: Random) -> list[tuple[bytes, bytes]]:
        headers: list[tuple[bytes, bytes]] = []
        if random.random() < 0.9:
            headers.append((b"Authorization", b"Bearer " + random.choice(self._tokens).encode()))
        elif random.random() < 0.5:
            headers.append(
                (b"Authorization", random.choice((b"Bearer", b"Basic eDp4", b"Bearer \xff", b"bearer " + b"x" * 9_000)))
            )
        if random.random() < 0.2:
            headers.append(random.choice(HEADERS))
        return headers

    def _body(self, random: Random, operation: Mapping[str, Any]) -> bytes:
        chance = random.random()
        if chance < 0.05:
            return random.randbytes(random.randrange(2_000))
        if chance < 0.1:
            return random.choice(NASTY_JSON)
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        body = self._json(random, content.get("schema", {}), 0)
        if chance < 0.2 and body:
            data = bytearray(body)
            for _ in range(random.randrange(1, 4)):
                data[random.randrange(len(data))] = random.randrange(256)
            return bytes(data)
        return body[: random.randrange(len(body) + 1)] if chance < 0.25 else body

    def _json(self, random: Random, schema: Mapping[str, Any], depth: int) -> bytes:
        """A value as bytes: by the document, with nasty ones in the place of some of its parts."""
        schema = self._resolve(random, schema)
        if depth and random.random() < 0.12:
            return random.choice(NASTY_JSON)
        if schema.get("type") == "array" and depth < DEPTH_MAX:
            many = random.choice((0, 1, 1, 2, 3, 20))
            return b"[" + b",".join(self._json(random, schema.get("items", {}), depth + 1) for _ in range(many)) + b"]"
        if "properties" in schema and depth < DEPTH_MAX:
            return self._object(random, schema, depth)
        return json.dumps(self._value(random, schema, depth)).encode()

    def _object(self, random: Random, schema: Mapping[str, Any], depth: int) -> bytes:
        required = schema.get("required", ())
        pairs: list[bytes] = []
        for name, of_field in schema["properties"].items():
            if random.random() < (0.97 if name in required else 0.3):
                pairs.append(
                    json.dumps(name).encode() + b":" + self._json(random, self._known(name, of_field), depth + 1)
                )
        if random.random() < 0.05:
            pairs.append(b'"unknown":' + random.choice(NASTY_JSON))
        return b"{" + b",".join(pairs) + b"}"

    def _known(self, name: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the document says of a field, narrowed to what is there where that is known."""
        known = {"pool": ("default",), "queue": ("prod", "default"), "task": self._tasks, "id": self._tasks}
        kinds = ("noop", "command", "plan", "plan_and_apply")
        values = kinds if name == "kind" else known.get(name)
        return schema if values is None else {"enum": list(values)}

    def _value(self, random: Random, schema: Mapping[str, Any], depth: int) -> Any:
        """A value that the document allows, as far as one can tell."""
        schema = self._resolve(random, schema)
        if "enum" in schema:
            return random.choice(schema["enum"])
        if "const" in schema:
            return schema["const"]
        match schema.get("type"):
            case "integer":
                low = int(schema.get("minimum", 0))
                return random.randint(low, int(schema.get("maximum", low + 100)))
            case "number":
                return random.uniform(0, 100)
            case "boolean":
                return random.random() < 0.5
            case "null":
                return None
            case "string":
                return random.choice(("default", "prod", "x", "1.0", "noop", "2026-11-21T10:00:00Z", "running"))
            case "array" if depth < DEPTH_MAX:
                return [self._value(random, schema.get("items", {}), depth + 1) for _ in range(random.randrange(3))]
            case _:
                return random.choice(({}, {"n": 1}, {"script": "true"}, {"argv": ["true"]}, {"directory": "/srv/tf"}))

    def _resolve(self, random: Random, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        for _ in range(DEPTH_MAX):
            if "$ref" in schema:
                schema = self._schemas.get(schema["$ref"].rpartition("/")[2], {})
            elif choices := schema.get("anyOf") or schema.get("oneOf"):
                schema = random.choice(choices)
            elif isinstance(schema.get("type"), list):
                schema = {**schema, "type": random.choice(schema["type"])}
            else:
                break
        return schema
