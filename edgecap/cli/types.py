"""Types of options: text that people type becomes a checked value.

Parsing is done by the library; a wrong value becomes click's usage error (exit status 2).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from edgecap import parsing
from edgecap.errors import UsageError, did_you_mean
from edgecap.names import shortened
from edgecap.provider_options import parse_providers

if TYPE_CHECKING:
    from edgecap.analysis.thresholds import FailRule

    _ParamType = click.ParamType[Any]
else:  # generic since click 8.2
    _ParamType = click.ParamType


class ParsedType(_ParamType):
    """Value that a function of the library reads from text; its UsageError becomes click's."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name, self._parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the parsed text; a default that is a value already stays as it is."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


class AmountType(ParsedType):
    """Positive amount with a unit, in SI units."""

    def __init__(self, name: str, units: dict[str, float], example: str) -> None:
        super().__init__(name, partial(parsing.parse_amount, units=units, example=example))


class SeriesType(ParsedType):
    """Rising whole numbers, as a list or a range; `none` is an empty list where it is allowed."""

    def __init__(self, may_be_none: bool = False) -> None:
        super().__init__("series", self._series)
        self._may_be_none = may_be_none

    def _series(self, text: str) -> tuple[int, ...]:
        if self._may_be_none and text.strip().lower() == "none":
            return ()
        return parsing.parse_series(text)


class NamesType(ParsedType):
    """Names in lower case, split at commas."""

    def __init__(self) -> None:
        super().__init__("names", parsing.parse_names)


class ProvidersType(ParsedType):
    """Execution providers with their options, each in one spelling."""

    def __init__(self) -> None:
        super().__init__("providers", lambda text: tuple(map(str, parse_providers(text))))


class LimitType(_ParamType):
    """Limit of `edgecap recommend`, with the metric and the units of its option."""

    name = "limit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the amount as a `Limit`."""
        from edgecap.analysis.recommend.limits import BY_OPTION, Limit

        assert param is not None and param.name is not None
        option = BY_OPTION[f"--{param.name.replace('_', '-')}"]
        try:
            most = parsing.parse_amount(value, option.units, option.example)
        except UsageError as error:
            self.fail(str(error), param, ctx)
        return Limit(option.name, option.metric, most)


def _fail_rule(text: str) -> FailRule:
    from edgecap.analysis.thresholds import parse_rule

    return parse_rule(text)


def _baseline(text: str) -> str:
    """Check a baseline; the comparison reads the text itself, as the Python API does."""
    from edgecap.analysis.pairing import parse_baseline

    parse_baseline(text)
    return text


def _exact_bytes(text: str) -> int:
    from edgecap.pipeline.exact_bytes import parse_bytes

    return parse_bytes(text)


def _context_growth(text: str) -> tuple[int, ...]:
    name, _, series = text.partition("=")
    if name != "context":
        raise UsageError(
            f"'{shortened(text)}': only the context can grow; write context=128:131072:x2"
        )
    return parsing.parse_series(series)


def _cache_kind(text: str) -> str:
    """Return the name of a kind of cache entry; the plural, which names its folder, will do."""
    from edgecap.storage.cache import KIND_NAMES

    kind = text.strip().lower().replace("-", " ")
    name = next((name for name in KIND_NAMES if kind in (name, f"{name}s")), None)
    if name is None:
        raise UsageError(
            f"'{text}' is none of {', '.join(KIND_NAMES)}{did_you_mean(kind, KIND_NAMES)}"
        )
    return name


NAMES = NamesType()
PROVIDERS = ProvidersType()
LIST = ParsedType("list", parsing.parse_list)
INTEGERS = ParsedType("integers", parsing.parse_integers)
SERIES = SeriesType()
SERIES_OR_NONE = SeriesType(may_be_none=True)
PROCESSORS = ParsedType("processors", parsing.parse_processors)
SIZE = AmountType("size", parsing.BYTES, "10GB or 500MB")
AGE = AmountType("age", parsing.AGES, "30d, 12h or 90m")
FAIL_RULE = ParsedType("rule", _fail_rule)
BASELINE = ParsedType("baseline", _baseline)
EXACT_BYTES = ParsedType("exact bytes", _exact_bytes)
CONTEXT_GROWTH = ParsedType("context", _context_growth)
LIMIT = LimitType()
CACHE_KIND = ParsedType("kind", _cache_kind)
