"""Which number format a network runs in on which hardware."""

import torch

from vertebra_kp.config.schema import Precision
from vertebra_kp.core.errors import UserError


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """None means float32; ``auto`` is the 16 bits that the hardware is fast in. UserError for fp16 on a CPU."""
    on_gpu = device.type == "cuda"
    if precision == "off":
        return None
    if precision == "bf16":
        return torch.bfloat16
    if precision == "fp16":
        if not on_gpu:
            raise UserError("train.precision: fp16 needs a GPU, this is a CPU; take auto, bf16 or off")
        return torch.float16
    if on_gpu:
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if _cpu_has_bf16() else None


def _cpu_has_bf16() -> bool:
    capabilities: dict[str, bool] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # torch before 2.10 does not say
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    dtype = autocast_dtype(precision, device)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)
