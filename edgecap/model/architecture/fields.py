"""Look up fields of a config under their published names, check them, and name them in errors."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from edgecap.errors import Uncountable, UsageError
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
# A null stands for no value in transformers, too, and these cannot be without.
_NOT_NULL = {"head_dim", "routed", "expert_width", "kv_rank", "sparse_step", "window_from"}
_SHAPE = {"hidden", "layers"}
_LIMITS = {"layers": 10_000, "routed": 1_000_000}  # reading more would take minutes
_LIMIT = 1_000_000_000


class Fields:
    """The fields of one config; errors name the config by `where`. Lookups raise UsageError.

    `defaults` are the sizes of the type, for fields that the config leaves out. `nested_part` is
    true for the `text_config` of another config.
    """

    def __init__(
        self,
        config: Config,
        where: str,
        defaults: Mapping[str, int] = MappingProxyType({}),
        nested_part: bool = False,
    ) -> None:
        self.config, self.where, self.defaults = config, where, defaults
        self.nested_part = nested_part

    def error(self, words: str) -> UsageError:
        """Return an error that names the config."""
        return UsageError(f"{self.where}: {words}")

    def uncountable(self, words: str) -> Uncountable:
        """Return an error that names the config, which edgecap cannot count."""
        return Uncountable(f"{self.where}: {words}")

    def maybe(self, field: str, index: int | None = None) -> int | None:
        """Return a field as a number, or None if neither the config nor its type has one.

        Of a list with one value a layer, return that of layer `index`.
        """
        given = [name for name in FIELDS[field] if name in self.config]
        for name in given:
            value = self.config[name]
            if field in _PER_LAYER and isinstance(value, list) and index is not None:
                value = self._of_layer(name, value, index)
            if value is not None and not (field == "window" and value == -1):
                return self._checked(field, name, value)
        if given and field in _NOT_NULL and field in self.defaults:
            raise self.uncountable(f"{given[0]} is null, and models of this type need a number")
        return None if given else self.defaults.get(field)

    def need(self, field: str, index: int | None = None) -> int:
        """Return a field as a number. Raise UsageError that names it if it is missing."""
        self.require(field)
        return self.maybe(field, index) or 0

    def name(self, field: str) -> str:
        """Return the name that the config uses for a field, for an error about its value."""
        return next((n for n in FIELDS[field] if self.config.get(n) is not None), FIELDS[field][0])

    def require(self, *needed: str) -> None:
        """Raise UsageError that names all missing fields; check the values of the others."""
        missing = [" or ".join(FIELDS[f][:3]) for f in needed if self._is_missing(f)]
        if missing:
            raise self.uncountable(
                f"no field {', '.join(missing)}; the architecture cannot be read"
            )

    def _is_missing(self, field: str) -> bool:
        """Return True for a field without a value.

        Only a part of another config leaves out its width and depth: transformers writes them into
        all others, whatever the defaults.
        """
        if field in _SHAPE and not self.nested_part:
            return all(self.config.get(name) is None for name in FIELDS[field])
        return self.maybe(field, 0) is None

    def listed(self, name: str) -> list[Any]:
        """Return the list of exactly this name; empty if there is none."""
        value = self.config.get(name)
        if value is not None and not isinstance(value, list):
            raise self.error(f"{name} is {_shown(value)}, not a list")
        return value or []

    def nested(self, name: str) -> Config:
        """Return the inner object of exactly this name; empty if there is none."""
        value = self.config.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise self.error(f"{name} is {_shown(value)}, not an object")
        return value or {}

    def flag(self, flag: Flag) -> bool:
        """Return a fact of the family, or the value of the config's flag."""
        if isinstance(flag, bool):
            return flag
        name, otherwise = flag
        value = self.config.get(name, otherwise)
        if value is not None and not isinstance(value, bool):
            raise self.error(f"{name} is {_shown(value)}, neither true nor false")
        return bool(value)

    def _of_layer(self, name: str, values: list[Any], index: int) -> Any:
        if len(values) != self.need("layers"):
            raise self.error(
                f"{name} is a list of {len(values)} values for {self.need('layers')} layers"
            )
        return values[index]

    def _checked(self, field: str, name: str, value: Any) -> int:
        if isinstance(value, list):
            raise self.uncountable(f"{name} is {_shown(value)}, not a positive whole number")
        least = 0 if field in _MAY_BE_ZERO else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.error(f"{name} is {_shown(value)}, not a positive whole number")
        if value > _LIMITS.get(field, _LIMIT):
            raise self.error(f"{name} is {_shown(value)}, more than any model has")
        return value


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**18:
        # Python refuses the repr of a huge integer.
        return f"about 10^{len(format(abs(value), 'x')) * 1204 // 1000}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
