"""An image that is damaged when its turn comes: one line names it, no process is left, with workers or without."""

import json
import os
import shutil
import sys
import time

import pytest
import reliability

from vertebra_kp.config.io import load_config, save_config
from vertebra_kp.data.shards import read_shards

ENDS_WITHIN_S = 120  # two workers import everything first

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")


@pytest.fixture
def shards(small, place):
    """A copy of the small run's shards; their headers and labels are whole, the pixels of one image are not."""
    folder = place / "damaged shards"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(small.folder / "shards", folder)
    config = load_config(small.config)
    _, places = read_shards(folder, "csv", config.data.film_schema, config.data.film_size)
    trained = json.loads(small.split_file.read_text())["splits"][config.data.train_splits[0]]
    damaged = places[trained[0]]
    content = bytearray(damaged.shard.read_bytes())
    half = damaged.offset + damaged.length // 2
    content[half : half + 40] = os.urandom(40)
    damaged.shard.write_bytes(content)
    return folder


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_an_image_that_is_damaged_in_mid_epoch_ends_the_training_with_its_name(
    nursery, small, shards, place, workers
):
    config = load_config(small.config)
    data = config.data.model_copy(update={"shards": shards, "workers": workers})
    job = place / f"shards {workers}.yaml"
    save_config(config.model_copy(update={"data": data}), job)
    out, survived = place / f"damaged {workers}", 0
    shutil.rmtree(out, ignore_errors=True)
    start = time.monotonic()
    pid = nursery.start(["train", "--config", job, "--run-dir", out, "--device", "cpu"], out)
    ended = nursery.wait(pid)
    try:
        ended.check()
        assert ended.code == 1, ended.output[-1500:]
        assert "error: " in ended.output
        assert "films-0000" in ended.output.split("error: ")[1]
        assert time.monotonic() - start < ENDS_WITHIN_S
        with pytest.raises(ProcessLookupError):
            os.killpg(pid, 0)
        survived = 1
    finally:
        seen = "one line with shard and image, exit code 1"
        reliability.record(
            "a damaged image in mid-epoch", f"train, {workers} workers", cases=1, survived=survived, seen=seen
        )
