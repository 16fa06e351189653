"""Options from the configuration's fields: a field with a description is an option, with its range and its help."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import click
from pydantic.fields import FieldInfo

from stipple.cli.options import ParamType
from stipple.errors import InputError

_JOINT = "__"  # between section and key in a parameter's name
_MAIN = "Options"
_METAVARS = {int: "INTEGER", float: "NUMBER"}
Layer = dict[str, Any]


class ConfigCommand(click.Command):
    """A command with an option for every field of some of the configuration's sections; all of them by default.

    ``without`` names fields that the command does not use. Values are passed as ``section__key``, see
    :func:`given_layers`. The options are created on demand: other commands need not import the configuration.
    """

    def __init__(self, *args: Any, sections: tuple[str, ...] | None = None, without: tuple[str, ...] = (), **more: Any):
        super().__init__(*args, **more)
        self._sections, self._without = sections, without
        self._titles: dict[str, list[click.Option]] | None = None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *(o for options in self._grouped().values() for o in options)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        grouped = dict(self._grouped())
        own = [p for p in super().get_params(ctx) if isinstance(p, click.Option)]
        for title, options in {_MAIN: [*own, *grouped.pop(_MAIN, [])], **grouped}.items():
            with formatter.section(title):
                formatter.write_dl([r for r in (o.get_help_record(ctx) for o in options) if r is not None])

    def _grouped(self) -> dict[str, list[click.Option]]:
        if self._titles is None:
            self._titles = _options(self._sections, self._without)
        return self._titles


def _options(chosen: tuple[str, ...] | None, without: tuple[str, ...]) -> dict[str, list[click.Option]]:
    """Options by the title of their section."""
    from stipple.train.config import fields, sections  # here: only commands that need it pay for the import

    grouped: dict[str, list[click.Option]] = {}
    kinds = sections()
    for name, field in fields().items():
        section, _, key = name.rpartition(".")
        if name in without or not field.description or (chosen is not None and section not in chosen):
            continue
        kind = kinds[section]
        title = (kind.__doc__ or "").rstrip(".") if section else _MAIN
        prefix = section if kind.option_prefix is None else kind.option_prefix
        grouped.setdefault(title, []).append(_option(name, _flag(prefix, key, field), field))
    return grouped


def _flag(prefix: str, key: str, field: FieldInfo) -> str:
    own = _extra(field).get("option")
    return own or "-".join(part for part in (prefix, *key.split("_")) if part)


def _extra(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _option(name: str, flag: str, field: FieldInfo) -> click.Option:
    """A field's option; None by default, so that a preset's or a file's value is kept."""
    text = field.description or ""
    text = text if ":" in text.split(" ")[0] else text[:1].upper() + text[1:]
    kind = _kind(field)
    metavar = _extra(field).get("metavar") or _METAVARS.get(kind)
    more: dict[str, Any] = {"default": None, "help": f"{text}.", "metavar": metavar}
    if kind is bool:
        return click.Option([name.replace(".", _JOINT), f"--{flag}/--no-{flag}"], **more)
    return click.Option([name.replace(".", _JOINT), f"--{flag}"], type=_type(kind, flag, field), **more)


def _kind(field: FieldInfo) -> Any:
    """The type of a field's value, without None."""
    if get_origin(field.annotation) in (Union, UnionType):
        kinds = [k for k in get_args(field.annotation) if k is not type(None)]
        return kinds[0] if len(kinds) == 1 else Any
    return field.annotation


def _type(kind: Any, flag: str, field: FieldInfo) -> Any:
    if kind is int:
        return click.IntRange(**_bounds(field))
    if kind is float:
        return click.FloatRange(**_bounds(field))
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if _extra(field).get("folder"):
        return click.Path(file_okay=False, resolve_path=True)
    return click.STRING if kind is str else _Value(flag)


def _bounds(field: FieldInfo) -> dict[str, Any]:
    """A field's range as click's number types take it."""
    bounds: dict[str, Any] = {}
    for limit in field.metadata:
        if isinstance(limit, annotated_types.Ge):
            bounds["min"] = limit.ge
        elif isinstance(limit, annotated_types.Gt):
            bounds |= {"min": limit.gt, "min_open": True}
        elif isinstance(limit, annotated_types.Le):
            bounds["max"] = limit.le
        elif isinstance(limit, annotated_types.Lt):
            bounds |= {"max": limit.lt, "max_open": True}
    return bounds


class _Value(ParamType):  # type: ignore[misc]
    """Several numbers separated by commas, a list in TOML, or a word."""

    name = "value"

    def __init__(self, flag: str) -> None:
        self.flag = flag

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from stipple.train.config_toml import parse_value

        del param, ctx
        if not isinstance(value, str) or "," not in value or value.lstrip().startswith("["):
            return parse_value(value) if isinstance(value, str) else value
        try:
            return [float(v) for v in value.split(",")]
        except ValueError:
            raise InputError(f"--{self.flag}: expected numbers separated by commas, got {value!r}") from None


def given_layers(flags: Layer, settings: tuple[str, ...] = ()) -> list[Layer]:
    """The options that were passed, then ``--set KEY=VALUE``, as layers of configuration."""
    from stipple.train.config import layer_of
    from stipple.train.config_toml import parse_setting

    layers = [layer_of(name.replace(_JOINT, "."), value) for name, value in _given(flags)]
    return layers + [parse_setting(s) for s in settings]


def _given(flags: Layer) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in flags.items() if value is not None)
