"""Looking fields up in a config: under their published names, checked, with errors that name field and value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgecap.errors import UsageError
from edgecap.model.architecture.families import FIELDS, Flag

Config = Mapping[str, Any]

_MAY_BE_ZERO = {
    "dense_first",
    "shared_experts",
    "shared_width",
    "window",
    "window_from",
    "routed",
    "cache_sharing",
}
_PER_LAYER = {"width"}  # may be a list with one value a layer (Gemma 3n)
_MOST = {"layers": 10_000, "routed": 1_000_000}  # beyond them reading alone would take minutes
_MOST_OF_ALL = 1_000_000_000


class Fields:
    """The fields of one config; `where` it stands goes into the errors. Every lookup raises UsageError."""

    def __init__(self, config: Config, where: str) -> None:
        self.config, self.where = config, where

    def error(self, words: str) -> UsageError:
        """An error that says where the config stands."""
        return UsageError(f"{self.where}: {words}")

    def maybe(self, field: str, index: int | None = None) -> int | None:
        """The field, or None where the config has none; of a list with one value a layer, that of layer `index`."""
        for name in FIELDS[field]:
            value = self.config.get(name)
            if field in _PER_LAYER and isinstance(value, list) and index is not None:
                value = self._of_layer(name, value, index)
            if value is not None and not (field == "window" and value == -1):
                return self._checked(field, name, value)
        return None

    def need(self, field: str, index: int | None = None) -> int:
        """The field; its absence is an error that names it."""
        self.require(field)
        return self.maybe(field, index) or 0

    def name(self, field: str) -> str:
        """The name under which the config has the field, for an error about its value."""
        return next((n for n in FIELDS[field] if self.config.get(n) is not None), FIELDS[field][0])

    def require(self, *needed: str) -> None:
        """Refuses a config that lacks some of the fields, naming all of those; checks the values of all others."""
        missing = [" or ".join(FIELDS[f][:3]) for f in needed if self.maybe(f, 0) is None]
        if missing:
            raise self.error(f"no field {', '.join(missing)}; the architecture cannot be read")

    def listed(self, name: str) -> list[Any]:
        """A list under exactly this name; empty where there is none."""
        value = self.config.get(name)
        if value is not None and not isinstance(value, list):
            raise self.error(f"{name} is {_shown(value)}, not a list")
        return value or []

    def nested(self, name: str) -> Config:
        """An inner object under exactly this name; empty where there is none."""
        value = self.config.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise self.error(f"{name} is {_shown(value)}, not an object")
        return value or {}

    def flag(self, flag: Flag) -> bool:
        """A fact of the family, or what the config says."""
        if isinstance(flag, bool):
            return flag
        name, otherwise = flag
        value = self.config.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.error(f"{name} is {_shown(value)}, neither true nor false")
        return otherwise if value is None else value

    def _of_layer(self, name: str, values: list[Any], index: int) -> Any:
        if len(values) != self.need("layers"):
            raise self.error(
                f"{name} is a list of {len(values)} values for {self.need('layers')} layers"
            )
        return values[index]

    def _checked(self, field: str, name: str, value: Any) -> int:
        least = 0 if field in _MAY_BE_ZERO else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.error(f"{name} is {_shown(value)}, not a positive whole number")
        if value > _MOST.get(field, _MOST_OF_ALL):
            raise self.error(f"{name} is {_shown(value)}, more than any model has")
        return value


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**18:
        return f"about 10^{len(format(abs(value), 'x')) * 1204 // 1000}"  # repr of a huge integer is refused by Python
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
