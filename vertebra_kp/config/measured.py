"""What measuring a trained network may change of its config: decoding and inference, nothing that was trained."""

from collections.abc import Sequence

from vertebra_kp.config.differences import differences
from vertebra_kp.config.io import override_config
from vertebra_kp.config.schema import Config
from vertebra_kp.core.errors import UserError

MEASURABLE = ("codec.decode", "codec.dark_blur", "inference.")


def as_measured(trained: Config, overrides: Sequence[str]) -> Config:
    """The config of a trained network under other settings of decoding and inference.

    Raises UserError where an override would change what was trained.
    """
    measured = override_config(trained, overrides)
    if refused := [key for key in differences(trained, measured) if not key.startswith(MEASURABLE)]:
        raise UserError(
            f"{', '.join(refused)}: the network was trained with another value, measuring cannot change it; train "
            f"with it, or set only {MEASURABLE[0]}, {MEASURABLE[1]} and {MEASURABLE[2]}*"
        )
    return measured
