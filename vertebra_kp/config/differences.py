"""Two configs compared, setting by setting."""

from typing import Any

from vertebra_kp.config.schema import Config
from vertebra_kp.config.section import Section

# Where a run is taken up on another machine, these may differ without changing a single weight.
MAY_DIFFER = (
    "data.root",
    "data.cache",
    "data.shards",
    "data.workers",
    "train.save_every_steps",
    "train.log_every_steps",
    "train.trackers",
)


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Settings that differ, as dotted keys with both values; what MAY_DIFFER is left out."""
    before, after = flat_config(old), flat_config(new)
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not key.startswith(MAY_DIFFER)
    }


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one level of dotted keys."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {prefix: value}
    inner = (_flat(item, f"{prefix}.{key}" if prefix else str(key)) for key, item in value.items())
    return {key: item for flat in inner for key, item in flat.items()}


def flat_config(config: Section) -> dict[str, Any]:
    """The config as dotted keys, for tables of hyperparameters."""
    return _flat(config.model_dump(mode="json"))
