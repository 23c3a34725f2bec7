"""A batch of one: every decoder either learns from it, or one line says before the training why it cannot."""

import pytest
import torch

from vertebra_kp.config.network import BackboneConfig, DecoderConfig, NeckConfig, NetworkConfig
from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.core.errors import UserError
from vertebra_kp.models.network import VertebraNetwork
from vertebra_kp.models.spine_network import SpineNetwork
from vertebra_kp.training.batch_norm import check_batch_norms

DECODERS = ("unet", "fpn", "unetplusplus", "manet", "linknet", "upernet", "segformer")


def config_of(decoder):
    return NetworkConfig(
        backbone=BackboneConfig(name="timm/tf_efficientnet_lite0"),
        neck=NeckConfig(depth=0, width=32, heads=4),
        decoder=DecoderConfig(name=decoder, output_stride=4),
    )


def says(network, size):
    """What the check says of a batch of one, None where it is content."""
    try:
        check_batch_norms(network, 1, size)
    except UserError as error:
        return str(error)
    return None


def learns(network, size):
    """Whether torch itself takes the batch, on real numbers."""
    try:
        network.train()(torch.zeros(1, 1, *size))
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("size", [(32, 32), (64, 32)])
@pytest.mark.parametrize("decoder", DECODERS)
def test_what_torch_would_refuse_is_said_in_one_line_before(decoder, size):
    network = VertebraNetwork(config_of(decoder), SCHEMAS["la_lumbar"])
    said = says(network, size)
    assert (said is None) == learns(network, size)
    if said is not None:
        assert said.startswith(f"train.batch_size is 1, and at an input of {size[0]} x {size[1]} the BatchNorm ")
        assert "\n" not in said
    check_batch_norms(network, 2, size)


def test_upernet_pools_to_one_cell_whatever_the_input_is():
    network = SpineNetwork(config_of("upernet"))
    assert "the BatchNorm decoder." in says(network, (256, 128))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    check_batch_norms(network, 2, (256, 128))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_frozen_layer_needs_no_variance():
    network = VertebraNetwork(config_of("unet"), SCHEMAS["la_lumbar"])
    assert "the BatchNorm backbone." in says(network, (32, 32))
    network.freeze("all", ("decoder",))
    assert says(network, (32, 32)) is None
