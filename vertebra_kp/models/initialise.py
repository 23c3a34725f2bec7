"""First weights of the layers that no pretrained network brings."""

from typing import Any, Literal

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

NORMAL_STD = 0.01
# A mode sees some functions of torch.nn.init, of others only what they call; which, depends on torch's version.
INITIALISERS = [f for name, f in vars(nn.init).items() if name.endswith("_") and not name.startswith("_")]
FILLS = {Tensor.uniform_, Tensor.normal_, *INITIALISERS}


def initialise(module: nn.Module, kind: Literal["default", "normal", "kaiming"]) -> None:
    """Weights of all convolutions and linear layers in ``module``, in place; ``default`` leaves torch's own.

    ``normal`` has a deviation of 0.01, as detection heads are started (Lin et al., "Focal Loss", ICCV 2017);
    ``kaiming`` keeps the variance on the way back (He et al., ICCV 2015, fan-out). Their biases are 0.
    Attention keeps torch's own.
    """
    if kind == "default":
        return
    attention = (layer for layer in module.modules() if isinstance(layer, nn.MultiheadAttention))
    kept = {id(part) for layer in attention for part in layer.modules()}
    for layer in module.modules():
        if id(layer) in kept:
            continue
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            if kind == "normal":
                nn.init.normal_(layer.weight, std=NORMAL_STD)
            else:
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class WithoutFirstWeights(TorchFunctionMode):
    """Networks built inside have any weights at all: for those whose weights come from a file, a tenth of a second
    sooner, and without a random number."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in FILLS:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)
