"""Configurations as TOML: read from files and from single settings, written with comments."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import Item

from stipple.errors import FileFormatError, InputError
from stipple.formats.reading import read_bytes
from stipple.train.config import Config, fields, layer_of, sections

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MAX_BYTES, _MAX_LINE = 1 << 16, 1 << 12  # parsing dotted keys takes time quadratic in their length
_COMMENTS_FROM = 32


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises FileFormatError, naming the file, if it is not valid TOML."""
    try:
        return _parse(read_bytes(path, _MAX_BYTES).decode())
    except FileFormatError:
        raise
    except ValueError as error:
        raise FileFormatError(f"{path}: not valid TOML: {error}") from None


def _parse(text: str) -> dict[str, Any]:
    """Tables from TOML. Raises ValueError."""
    if any(len(line) > _MAX_LINE for line in text.split("\n")):
        raise ValueError(f"a line is longer than {_MAX_LINE} characters")
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return tables


def parse_setting(text: str) -> dict[str, Any]:
    """``section.key=value``, the value in TOML or a bare word, as a layer."""
    name, _, value = text.partition("=")
    name, known = name.strip(), fields()
    if not value or name not in known:
        near = ", ".join(n for n in known if name.split(".")[-1] in n) or "see --show-config"
        raise InputError(f"--set {text}: expected section.key=value with a known key ({near})")
    return layer_of(name, parse_value(value))


def parse_value(text: str) -> Any:
    """A value in TOML; anything that is not TOML is a bare word."""
    try:
        return _parse(f"v = {text}")["v"]
    except ValueError:
        return text


def to_toml(config: Config, comments: bool = True) -> str:
    """The configuration as TOML. With ``comments`` each value is followed by its meaning, and values that are not set
    are listed as comments; without, they are left out."""
    document = tomlkit.document()
    values = config.model_dump(exclude_none=True, mode="json")
    for section, kind in sections().items():
        table: Any = tomlkit.table() if section else document
        given = values[section] if section else values
        for name, field in kind.model_fields.items():
            if not section and name in sections():
                continue
            about = field.description or ""
            if name in given:
                table.add(name, _commented(name, given[name], about) if comments else given[name])
            elif comments:
                table.add(tomlkit.comment(f"{name} = ...".ljust(_COMMENTS_FROM - 2) + f" # {about}"))
        if section:
            document.add(section, table)
    return tomlkit.dumps(document)


def _commented(name: str, value: Any, about: str) -> Item:
    item: Item = tomlkit.item(value).comment(about)
    width = len(f"{name} = {item.as_string()}")
    item.trivia.comment_ws = " " * max(1, _COMMENTS_FROM + 1 - width)
    return item
