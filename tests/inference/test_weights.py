"""Weights to give away: rounded, whole, checked, and read back as the networks they were."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from shared_data import field_case
from test_ensemble import checkpoint
from tiny_job import thin_efficientnet

from vertebra_kp.inference import network_file
from vertebra_kp.inference.checkpoint import load_checkpoint
from vertebra_kp.inference.loading import load
from vertebra_kp.inference.network_file import CheckpointError, find_network, is_weights
from vertebra_kp.inference.weights import FORMAT, SCALE, Stage, load_weights, save_weights
from vertebra_kp.models import library


@pytest.fixture(autouse=True)
def thin(monkeypatch):
    monkeypatch.setattr(library, "efficientnet_v2_s", thin_efficientnet)


@pytest.fixture
def look(tmp_path):
    saved = load_checkpoint(checkpoint(tmp_path / "best.pt"))
    return Stage(saved.config, saved.weights, saved.step)


def test_rounded_weights_are_within_half_a_step_and_a_quarter_of_the_size(tmp_path, look):
    path = tmp_path / "out" / "weights.safetensors"
    save_weights([look], path, {"data": "none"})
    (again,) = load_weights(path)
    assert (again.config, again.step) == (look.config, look.step)
    assert again.weights.keys() == look.weights.keys()
    rounded = 0
    for name, value in look.weights.items():
        found = again.weights[name]
        assert (found.shape, found.dtype) == (value.shape, value.dtype)
        if value.ndim < 2:
            assert torch.equal(found, value), name
        else:
            largest = value.abs().flatten(1).amax(1)
            limit = (largest / 127 / 2 * 1.001).reshape(-1, *[1] * (value.ndim - 1))
            assert ((found - value).abs() <= limit).all(), name
            rounded += not torch.equal(found, value)
    assert rounded > 10
    assert path.stat().st_size < 0.3 * (tmp_path / "best.pt").stat().st_size


def test_a_file_of_weights_predicts_as_the_checkpoint_and_under_its_name(tmp_path, look, monkeypatch):
    folder = tmp_path / "published"
    save_weights([look], folder / "some-ap" / network_file.FILE, {})
    monkeypatch.setattr(network_file, "COMMITTED", folder)
    assert network_file.published() == ["some-ap"]
    named, of_file = load("some-ap", "cpu"), load(folder / "some-ap" / network_file.FILE, "cpu")
    assert named.fingerprint == of_file.fingerprint
    film = torch.randint(0, 255, (64, 64), dtype=torch.uint8).numpy()
    exact = load(tmp_path / "best.pt", "cpu").predict(film)
    torch.testing.assert_close(named.predict(film).presence, exact.presence, atol=0.02, rtol=0)
    assert network_file.name_of(find_network("some-ap")) == "some-ap"
    assert network_file.name_of(tmp_path / "best.pt") == str(tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=r"other-ap: no such checkpoint, .* \(some-ap\)"):
        load("other-ap")


def test_a_file_is_known_by_its_content_whatever_it_is_called(tmp_path, look):
    save_weights([look], tmp_path / network_file.FILE, {})
    renamed = tmp_path / "some.bin"
    (tmp_path / network_file.FILE).rename(renamed)
    (tmp_path / "best.pt").rename(tmp_path / "best.safetensors")
    assert is_weights(renamed)
    assert not is_weights(tmp_path / "best.safetensors")
    assert load(renamed, "cpu").schema == load(tmp_path / "best.safetensors", "cpu").schema


def test_a_network_from_a_file_draws_no_random_numbers(tmp_path, look):
    save_weights([look], tmp_path / network_file.FILE, {})
    torch.manual_seed(0)
    before = torch.get_rng_state()
    load(tmp_path / network_file.FILE, "cpu")
    assert torch.equal(torch.get_rng_state(), before), "they would be thrown away, and cost a tenth of a second"


def test_weights_that_were_changed_or_cut_or_are_none_are_refused(tmp_path, look):
    path = tmp_path / network_file.FILE
    save_weights([look], path, {})
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"is not the file of weights.safetensors.sha256; fetch it again"):
        load_weights(path)
    (tmp_path / "weights.safetensors.sha256").unlink()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_weights(path)
    save_weights([look], path, {})
    (tmp_path / "weights.safetensors.sha256").unlink()
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="no weights of vertebra_kp in format 1"):
        load_weights(path)


def test_a_flipped_bit_is_found_without_the_checksum_beside(tmp_path, look):
    path, rng = tmp_path / network_file.FILE, np.random.default_rng(5)
    small = Stage(look.config, {"a": torch.randn(3, 300), "b": torch.arange(9)}, look.step)
    save_weights([small], path, {})
    (tmp_path / f"{network_file.FILE}.sha256").unlink()
    whole, refused = path.read_bytes(), 0
    (sound,) = load_weights(path)
    for at in rng.integers(0, 8 * len(whole), 200):
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        path.write_bytes(damaged)
        try:
            (loaded,) = load_weights(path)
        except CheckpointError as error:
            refused += "\n" not in str(error)
        else:
            assert (loaded.config, loaded.step) == (sound.config, sound.step)
            torch.testing.assert_close(loaded.weights, sound.weights, rtol=0, atol=0)
    assert refused > 190  # a bit in the name of the checksum takes the file for one of an earlier version


def test_a_file_of_an_earlier_version_has_no_checksum_in_it_and_is_read(tmp_path, look):
    path = tmp_path / network_file.FILE
    save_weights([look], path, {})
    (sound,) = load_weights(path)
    with safe_open(path, framework="pt") as file:
        metadata = {name: value for name, value in file.metadata().items() if name != "sha256"}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata)
    (tmp_path / f"{network_file.FILE}.sha256").unlink()
    (loaded,) = load_weights(path)
    torch.testing.assert_close(loaded.weights, sound.weights, rtol=0, atol=0)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\x00", b"0" * 64])
def test_a_checksum_beside_that_is_none_is_refused_in_one_line(tmp_path, look, content):
    save_weights([look], tmp_path / network_file.FILE, {})
    (tmp_path / f"{network_file.FILE}.sha256").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is not the file of weights.safetensors.sha256; fetch it again$"):
        load_weights(tmp_path / network_file.FILE)


@pytest.mark.parametrize(
    ("metadata", "tensors", "told"),
    [
        ({}, {}, "'looks'"),
        ({"looks": "[]"}, {}, "it holds no network"),
        ({"looks": "5"}, {}, "valid list"),
        ({"looks": "[1]"}, {}, "0: Input should be a valid dictionary"),
        ({"looks": '[{"config": {}}]'}, {}, "0.step: Field required"),
        ({"looks": "[" * 100_000}, {}, "nested too deeply"),
        ({"looks": "no json"}, {}, "Expecting value"),
        (
            {"looks": '[{"config": {}, "step": 1}]'},
            {"0.a": torch.zeros(3, 2), f"{SCALE}0.a": torch.zeros(4)},
            "must match the size",
        ),
        ({"looks": '[{"config": {}, "step": 1}]'}, {}, "its config is of another version"),
    ],
)
def test_a_file_that_somebody_made_is_refused_in_one_line(tmp_path, metadata, tensors, told):
    path = tmp_path / "own.safetensors"
    save_file({"a": torch.zeros(1), **tensors}, path, {"format": FORMAT, **metadata})
    with pytest.raises(CheckpointError, match=r"own\.safetensors: ") as refused:
        load(path, "cpu")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_weights_that_a_red_team_made_are_read_or_refused_in_one_line(monkeypatch):
    monkeypatch.undo()  # they are of the whole backbone
    for path in field_case("red").glob("*.safetensors"):
        with suppress(CheckpointError):
            load(path, "cpu")
