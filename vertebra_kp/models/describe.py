"""What a network is made of and what it costs: stages, shapes, parameters, MACs, training memory.

Counted on the meta device: nothing is computed and no memory is taken.
"""

from dataclasses import fields

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vertebra_kp.config.network import STRIDES
from vertebra_kp.config.schema import Config
from vertebra_kp.config.spine import LevelConfig, SpineConfig
from vertebra_kp.models.level_network import LevelNetwork
from vertebra_kp.models.network import Output, VertebraNetwork
from vertebra_kp.models.spine_network import SpineNetwork, SpineOutput

COLAB_GPU_GIB = 15.0
BATCHES = (4, 8, 16, 32)
SIZES = ((256, 128), (512, 192), (512, 512), (1024, 384))
PROBE_BATCH = 2  # with a batch of 1 some layers keep less
MIB, GIB = 2**20, 2**30
FLOAT32_BYTES = 4
RESERVED_GIB = 1.0  # CUDA context and convolution workspace
# Weights, gradients, AdamW's two moments and the moving average, all float32.
COPIES_OF_WEIGHTS = 5

Network = VertebraNetwork | SpineNetwork | LevelNetwork


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(network: Network, input_size: tuple[int, int]) -> int:
    """Multiply-accumulates of one film's forward pass (half the floating-point operations)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 1, *input_size, device="meta"))
    return counter.get_total_flops() // 2


def activation_bytes(network: Network, input_size: tuple[int, int], batch_size: int) -> tuple[int, int]:
    """Bytes that autograd keeps of one training forward pass in float32: of the network, and of the loss.

    The loss (logits, their softmax, the targets) stays float32 under mixed precision.
    """
    kept: dict[int, Tensor] = {}  # one by storage; they must outlive the count, or ids would be used again
    parameters = {id(parameter) for parameter in network.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        if id(tensor) not in parameters:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    network.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network(torch.zeros(batch_size, 1, *input_size, device="meta"))
    body = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return body, 3 * FLOAT32_BYTES * sum(feature.numel() for feature in _maps(output).values())


def _maps(output: Output | SpineOutput | Tensor) -> dict[str, Tensor]:
    """What the network answers with at each place of the image; nothing of a level network, which has no map."""
    if isinstance(output, Tensor):
        return {}
    if isinstance(output, Output):
        return {"heatmaps": output.heatmap_logits}
    return {field.name: getattr(output, field.name) for field in fields(output) if field.name != "view"}


def describe(config: Config | SpineConfig | LevelConfig) -> str:
    """A page of text: every map with its shape, every part with its parameters, cost by batch size.

    Of a spine or level network at the size of a training view: in use, images have other sizes.
    """
    network: Network
    with torch.device("meta"):
        if isinstance(config, SpineConfig):
            schema, size, told = config.keypoint_schema, config.views.size, "a training view of"
            network = SpineNetwork(config.network, load_weights=False).eval()
        elif isinstance(config, LevelConfig):
            schema, size, told = config.keypoint_schema, config.reformation.size, "a reformation of"
            network = LevelNetwork(config, load_weights=False).eval()
        else:
            schema, size, told = config.data.keypoint_schema, config.data.input_size, "input"
            network = VertebraNetwork(config.network, schema, load_weights=False).eval()
    features = network.backbone(torch.zeros(1, 3, *size, device="meta"))
    output = network(torch.zeros(1, 1, *size, device="meta"))
    lines = [f"{config.name}: {schema.name}, {schema.num_channels} corners, {told} {size[0]} x {size[1]}", ""]
    levels: dict[str, Tensor] = {}
    if not isinstance(network, LevelNetwork):
        _, levels = network.decoder(network.neck(features)[0])
    lines.append(f"{'map':<10}{'channels':>9}{'height x width':>17}{'stride':>8}{'MiB':>8}")
    strides = {**STRIDES, **{level: 2 ** int(level[1:]) for level in levels}}
    for name, feature in {**features, **levels, **_maps(output)}.items():
        _, C, h, w = feature.shape
        mib, stride = feature.numel() * FLOAT32_BYTES / MIB, strides.get(name) or network.output_stride
        lines.append(f"{name:<10}{C:>9}{f'{h} x {w}':>17}{stride:>8}{mib:>8.2f}")
    lines += [
        f"{'':<10}MiB of one image in float32, half of it in bf16",
        "",
        "backbone stages (freeze_stages: n freezes the stem and stages 1..n, or names them)",
    ]
    x = torch.zeros(1, 3, *size, device="meta")
    stages = zip(network.backbone.stage_names, network.backbone.blocks, network.backbone.layers_of, strict=True)
    counted = 0
    for name, block, layers in stages:
        x = block(x)
        places = f"layers {counted + 1} to {counted + len(layers)}" if layers else "no layers"
        counted += len(layers)
        shapes = ", ".join(
            f"{m.shape[1]} x {m.shape[2]} x {m.shape[3]}" for m in (x if isinstance(x, list) else [x])
        )
        lines.append(f"  {name:<22}{count_parameters(block) / 1e6:>8.2f} M parameters   {places:<20}{shapes}")
    lines += ["", "parts"]
    for name, part in {**network.parts, "all": network}.items():
        lines.append(f"  {name:<22}{count_parameters(part) / 1e6:>8.2f} M parameters")
    lines.append(f"  {count_macs(network, size) / 1e9:.2f} G multiply-accumulates a film")
    return "\n".join([*lines, "", *_memory_table(network, size)])


def _memory_table(network: Network, own_size: tuple[int, int]) -> list[str]:
    """Estimated GiB of a training step by input size and batch size, bf16 first; * does not fit."""
    lines = [
        f"training memory in GiB, bf16 / float32 (estimate; * is more than a {COLAB_GPU_GIB:.0f} GB GPU has)",
        f"{'input':<13}" + "".join(f"{f'batch {batch}':>15}" for batch in BATCHES),
    ]
    fixed = COPIES_OF_WEIGHTS * FLOAT32_BYTES * count_parameters(network) + RESERVED_GIB * GIB
    sizes = () if isinstance(network, LevelNetwork) else SIZES  # it takes one width
    for size in dict.fromkeys((own_size, *sizes)):
        body, loss = (part / PROBE_BATCH for part in activation_bytes(network, size, PROBE_BATCH))
        cells = ""
        for batch in BATCHES:
            amounts = [(fixed + batch * (loss + share * body)) / GIB for share in (0.5, 1.0)]
            cells += f"{' / '.join(f'{a:.1f}' + '*' * (a > COLAB_GPU_GIB) for a in amounts):>15}"
        lines.append(f"{f'{size[0]} x {size[1]}':<13}{cells}")
    return lines
