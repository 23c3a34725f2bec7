"""Whether every BatchNorm layer gets enough values to learn from: found on torch's meta device, without a film."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vertebra_kp.core.errors import UserError


def check_batch_norms(network: nn.Module, batch_size: int, size: tuple[int, int]) -> None:
    """Raises UserError where a layer that learns would get one value per channel, which has no variance.

    ``size`` is the height and width of what the network sees. Two films always give two values.
    """
    if batch_size > 1:
        return
    copy = deepcopy(network).to("meta").train()
    for name, module in copy.named_modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(_refusal(name, size))
    with torch.no_grad():
        copy(torch.zeros(1, 1, *size, device="meta"))


def _refusal(name: str, size: tuple[int, int]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def refuse(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        channels = inputs[0].shape[1]
        if module.training and inputs[0].numel() == channels:
            raise UserError(
                f"train.batch_size is 1, and at an input of {size[0]} x {size[1]} the BatchNorm {name} gets one "
                "value per channel, which has no variance; raise train.batch_size, or take another decoder or a "
                "larger input"
            )

    return refuse
