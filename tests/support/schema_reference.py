# SPDX-License-Identifier: MIT
"""Which values a JSON schema allows, in Python alone: what the engine's grammars are compared with."""

from __future__ import annotations

import datetime
import ipaddress
import re
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and value == value.to_integral_value(),
    "number": lambda value: _is_number(value),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


_SPACES = r"\t-\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"


def _is_number(value: Any) -> bool:
    return isinstance(value, Decimal)


def _matches(pattern: str, text: str) -> bool:
    """ECMA 262: $ is the end alone, digits and letters are those of ASCII, but spaces (outside brackets) are not."""
    pattern = re.sub(r"(?<!\\)\$", lambda found: r"\Z", pattern)
    pattern = pattern.replace(r"\s", f"[{_SPACES}]").replace(r"\S", f"[^{_SPACES}]")
    return re.search(pattern, text, re.ASCII) is not None


def _is_date_time(text: str) -> bool:
    try:
        datetime.datetime.fromisoformat(re.sub(r"\.\d+", "", text.replace("Z", "+00:00")))
    except ValueError:
        return False
    return "T" in text and len(text) > 19


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


FORMATS: dict[str, Callable[[str], bool]] = {
    "date": _parses(datetime.date.fromisoformat),
    "date-time": _is_date_time,
    "time": lambda text: _is_date_time("2024-01-01T" + text),
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "uuid": _parses(uuid.UUID),
    "email": lambda text: re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", text) is not None,
    "hostname": lambda text: re.fullmatch(r"(?!-)[A-Za-z0-9.-]+(?<!-)", text) is not None and ".." not in text,
    "uri": lambda text: re.match(r"[A-Za-z][A-Za-z0-9+.-]*:\S+$", text) is not None,
    "duration": lambda text: re.fullmatch(r"P(?=.)(\d+W|(\d+Y)?(\d+M)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+S)?)?)", text)
    is not None,
}


def allows(schema: Any, value: Any, root: Any = None) -> bool:
    """Whether a value, with Decimal for numbers, is one of a schema."""
    root = schema if root is None else root
    if isinstance(schema, bool):
        return schema
    good = [_general(schema, value, root)]
    if _is_number(value):
        good.append(_number(schema, value))
    if isinstance(value, str):
        good.append(_text(schema, value))
    if isinstance(value, list):
        good.append(_array(schema, value, root))
    if isinstance(value, dict):
        good.append(_object(schema, value, root))
    return all(good)


def _general(schema: Any, value: Any, root: Any) -> bool:
    if "$ref" in schema:
        target = root
        for name in schema["$ref"].split("/")[1:]:
            target = target[name]
        if not allows(target, value, root):
            return False
    types = schema.get("type", list(_TYPES))
    types = [types] if isinstance(types, str) else types
    return (
        any(_TYPES[name](value) for name in types)
        and all(allows(one, value, root) for one in schema.get("allOf", ()))
        and ("anyOf" not in schema or any(allows(one, value, root) for one in schema["anyOf"]))
        and ("oneOf" not in schema or sum(allows(one, value, root) for one in schema["oneOf"]) == 1)
        and ("not" not in schema or not allows(schema["not"], value, root))
        and ("const" not in schema or _same(value, schema["const"]))
        and ("enum" not in schema or any(_same(value, one) for one in schema["enum"]))
    )


def _same(a: Any, b: Any) -> bool:
    if _is_number(a) and not isinstance(b, bool | str | list | dict | None):
        return bool(a == Decimal(str(b)))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return type(a) is type(b) and bool(a == b)


def _number(schema: Any, value: Decimal) -> bool:
    def number(name: str) -> Decimal | None:
        return Decimal(str(schema[name])) if name in schema and not isinstance(schema[name], bool) else None

    least, most, divisor = number("minimum"), number("maximum"), number("multipleOf")
    above, below = number("exclusiveMinimum"), number("exclusiveMaximum")
    return not (
        (least is not None and (value < least or (value == least and schema.get("exclusiveMinimum") is True)))
        or (most is not None and (value > most or (value == most and schema.get("exclusiveMaximum") is True)))
        or (above is not None and value <= above)
        or (below is not None and value >= below)
        or (divisor is not None and value % divisor != 0)
    )


def _text(schema: Any, value: str) -> bool:
    has_format = FORMATS.get(schema.get("format", ""))
    return (
        schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9)
        and ("pattern" not in schema or _matches(schema["pattern"], value))
        and (has_format is None or has_format(value))
    )


def _array(schema: Any, value: list[Any], root: Any) -> bool:
    prefix = schema.get("prefixItems", ())
    rest = schema.get("items", True)
    distinct = all(not _same(one, other) for at, one in enumerate(value) for other in value[:at])
    return (
        schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 10**9)
        and all(allows(prefix[at] if at < len(prefix) else rest, one, root) for at, one in enumerate(value))
        and (distinct or not schema.get("uniqueItems", False))
    )


def _object(schema: Any, value: dict[str, Any], root: Any) -> bool:
    properties, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, one in value.items():
        parts = [properties[name]] if name in properties else []
        parts += [part for pattern, part in patterns.items() if _matches(pattern, name)]
        if not all(allows(part, one, root) for part in parts or [schema.get("additionalProperties", True)]):
            return False
        if "propertyNames" in schema and not allows(schema["propertyNames"], name, root):
            return False
    return schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", 10**9) and all(
        name in value for name in schema.get("required", ())
    )
