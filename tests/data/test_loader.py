"""Seed, epoch and step fix which film comes when; what the network finds maps back to the original film."""

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vertebra_kp.config.schema import AugmentConfig, Config
from vertebra_kp.core.anatomy import SCHEMAS, UNKNOWN, VIEWS, State, presence_target
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.geometry import apply_affine
from vertebra_kp.data.cache import PIXELS, CachedFilms
from vertebra_kp.data.films import FilmList
from vertebra_kp.data.images import FilmError
from vertebra_kp.data.loader import FilmDataset, open_batches, sequential, shuffled
from vertebra_kp.data.phantom import draw_film
from vertebra_kp.data.phantom_films import PhantomFilms
from vertebra_kp.data.record import Record, label_arrays
from vertebra_kp.inference.batch import predict_batch

LATERAL, FRONTAL = SCHEMAS["la_lumbar"], SCHEMAS["ap_lumbar"]
BACK_PX = 0.05  # of the original image: the claim

sizes = {
    "films": st.integers(0, 120),
    "batch_size": st.integers(1, 7),
    "world_size": st.integers(1, 4),
    "seed": st.integers(0, 10_000),
    "epoch": st.integers(0, 50),
}


def indices_of(*arguments, **options):
    return [index for _, index in shuffled(*arguments, **options)]


def ranks(films, epoch, *, seed, batch_size, world_size, start=0):
    """The items of all processes."""
    return [
        shuffled(films, epoch, seed=seed, batch_size=batch_size, rank=rank, world_size=world_size, start=start)
        for rank in range(world_size)
    ]


@settings(deadline=None)
@given(**sizes)
def test_each_step_sees_the_same_films_on_one_process_as_on_several(films, epoch, seed, batch_size, world_size):
    one = indices_of(films, epoch, seed=seed, batch_size=batch_size * world_size)
    processes = ranks(films, epoch, seed=seed, batch_size=batch_size, world_size=world_size)
    several = [[index for _, index in items] for items in processes]
    steps = films // (batch_size * world_size)
    assert [len(indices) for indices in several] == [steps * batch_size] * world_size
    assert len(one) == steps * batch_size * world_size
    for step in range(steps):
        mine = slice(step * batch_size, (step + 1) * batch_size)
        whole = slice(step * batch_size * world_size, (step + 1) * batch_size * world_size)
        assert sorted(index for indices in several for index in indices[mine]) == sorted(one[whole])


@settings(deadline=None)
@given(**sizes)
def test_no_film_comes_twice_in_an_epoch(films, epoch, seed, batch_size, world_size):
    processes = ranks(films, epoch, seed=seed, batch_size=batch_size, world_size=world_size)
    seen = [index for items in processes for _, index in items]
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(films))
    assert films - len(seen) < batch_size * world_size


@settings(deadline=None)
@given(**sizes, share=st.floats(0, 1))
def test_a_later_start_gives_exactly_the_rest(films, epoch, seed, batch_size, world_size, share):
    arguments = {"seed": seed, "batch_size": batch_size, "world_size": world_size}
    for whole, late in zip(
        ranks(films, epoch, **arguments),
        ranks(films, epoch, **arguments, start=int(share * films / world_size)),
        strict=True,
    ):
        start = int(share * films / world_size)
        assert late == whole[start:]


def test_epochs_and_seeds_have_orders_of_their_own_and_leave_the_global_state_alone():
    state = torch.get_rng_state()
    orders = {tuple(indices_of(40, e, seed=s, batch_size=4)) for e in range(5) for s in range(5)}
    assert len(orders) == 25
    assert indices_of(40, 3, seed=2, batch_size=4) == indices_of(40, 3, seed=2, batch_size=4)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_films_left_out_differ_from_epoch_to_epoch():
    left_out = [set(range(10)) - set(indices_of(10, e, seed=0, batch_size=4)) for e in range(20)]
    assert {len(films) for films in left_out} == {2}
    assert set.union(*left_out) == set(range(10))


def test_items_carry_their_epoch():
    items = shuffled(10, 6, seed=0, batch_size=2)
    assert {epoch for epoch, _ in items} == {6}
    assert sequential(3) == [(0, 0), (0, 1), (0, 2)]


def phantoms(films=5, *, augmentation=None, seed=0, fresh=True):
    size = (64, 32)
    drawn = PhantomFilms(LATERAL, "standard", 11, films, size, fresh=fresh)
    return FilmDataset(drawn, LATERAL, size, augmentation=augmentation, seed=seed)


def batches_of(dataset, items, *, batch_size, workers=0):
    with open_batches(dataset, items, batch_size=batch_size, workers=workers) as batches:
        return list(batches)


AUGMENTATION = AugmentConfig(rotate_deg=15, shift=0.3, noise=0.1)


def test_an_item_is_a_function_of_seed_epoch_and_index():
    first = phantoms(augmentation=AUGMENTATION, fresh=False)
    again = phantoms(augmentation=AUGMENTATION, fresh=False)
    again[(0, 3)], again[(1, 2)]  # other items in between change nothing
    other_seed = phantoms(augmentation=AUGMENTATION, fresh=False, seed=1)
    item = first[(2, 1)]
    assert torch.equal(item.image, again[(2, 1)].image)
    assert torch.equal(item.matrix, again[(2, 1)].matrix)
    for other in (first[(3, 1)], first[(2, 0)], other_seed[(2, 1)]):
        assert not torch.equal(item.matrix, other.matrix)


def test_fresh_films_are_new_in_every_epoch_and_never_repeat():
    dataset = phantoms(3)
    ids = [dataset[(epoch, index)].labels[0].id for epoch in range(2) for index in range(3)]
    assert len(set(ids)) == 6
    fixed = phantoms(3, fresh=False)
    assert torch.equal(fixed[(0, 1)].image, fixed[(1, 1)].image)


def test_a_share_of_the_films_shows_the_other_side_and_tells_only_that():
    arguments = LATERAL, "standard", 11, 10, (64, 32)
    mixed = PhantomFilms(*arguments, fresh=True, other_view=0.3)
    plain = PhantomFilms(*arguments, fresh=True)
    assert mixed.identity != plain.identity
    dataset = FilmDataset(mixed, LATERAL, (64, 32), augmentation=AUGMENTATION)
    frontal = VIEWS.index("AP")
    for epoch in (0, 3):
        batch = dataset.batch([(epoch, index) for index in range(10)])
        other = (batch.view == frontal).tolist()
        assert sum(other) == 3
        for i, labels in enumerate(batch.labels):
            drawn = mixed.at(epoch, i)
            index = epoch * 10 + i
            schema = SCHEMAS["ap_lumbar"] if other[i] else LATERAL
            np.testing.assert_array_equal(drawn.image, draw_film(schema, "standard", 11, index, (64, 32)).image)
            assert labels.view == batch.view[i]
            if other[i]:
                assert labels.id == f"{plain.at(epoch, i).id}-AP"
                assert (batch.states[i] == State.UNLABELLED).all()
                assert batch.presence[i].isnan().all()
                assert (batch.slips[i] == UNKNOWN).all()
            else:
                assert labels.id == plain.at(epoch, i).id
                np.testing.assert_array_equal(labels.slips, plain.at(epoch, i).slips)
                assert batch.presence[i].isfinite().all()


@pytest.mark.parametrize("share", [0.07, 0.3, 0.5, 0.99])
def test_films_from_the_other_side_are_spread_evenly(share):
    films = PhantomFilms(LATERAL, "standard", 11, 40, (32, 32), fresh=False, other_view=share)
    other = np.cumsum([films.at(0, index).view == VIEWS.index("AP") for index in range(40)])
    assert np.abs(other - share * np.arange(1, 41)).max() < 1


def test_a_whole_spine_is_drawn_from_one_side():
    with pytest.raises(UserError, match="no phantoms of ap_whole_spine from another side, only of ap_lumbar, la_"):
        PhantomFilms(SCHEMAS["ap_whole_spine"], "standard", 11, 4, (64, 32), fresh=True, other_view=0.3)


def test_a_batch_stacks_its_items():
    dataset = phantoms(5, augmentation=AUGMENTATION)
    items = shuffled(5, 1, seed=0, batch_size=3)
    (batch,) = batches_of(dataset, items, batch_size=3)
    assert batch.image.shape == (3, 1, 64, 32)
    assert batch.points_xy.shape == (3, 22, 2)
    assert batch.states.shape == (3, 22)
    assert batch.presence.shape == (3, 6)
    assert (batch.view.shape, batch.slips.shape) == ((3,), (3, 6))
    assert batch.view.dtype == batch.slips.dtype == torch.int64
    assert batch.matrix.shape == (3, 3, 3)
    assert batch.matrix.dtype == torch.float64  # the way back is as exact as float64
    assert batch.image.dtype == batch.points_xy.dtype == batch.presence.dtype == torch.float32
    for i, item in enumerate(items):
        alone = dataset[item]
        assert torch.equal(batch.image[i], alone.image)
        assert batch.labels[i].id == alone.labels[0].id
    assert torch.equal(dataset.batch(list(items)).image, batch.image)


def test_channels_states_and_presence_agree():
    """Points in the batch are the film's own, moved by the batch's matrix; lost ones are OUTSIDE."""
    dataset = phantoms(4, augmentation=AUGMENTATION)
    batch = dataset.batch(sequential(4))
    assert (batch.states == State.OUTSIDE).any()  # a shift of 30 % does that
    for i, labels in enumerate(batch.labels):
        expected = LATERAL.gather(apply_affine(batch.matrix[i].numpy(), labels.points_xy_image))
        seen = (batch.states[i] == State.LABELLED).numpy()
        np.testing.assert_allclose(batch.points_xy[i].numpy()[seen], expected[seen], atol=1e-3)
        assert batch.points_xy[i].isfinite().all(dim=-1).numpy().tolist() == seen.tolist()
        fixed = LATERAL.scatter(batch.states[i].numpy(), fill=State.NONEXISTENT)
        np.testing.assert_array_equal(batch.presence[i].numpy(), presence_target(fixed))


def test_workers_change_neither_films_nor_the_global_random_state():
    dataset = phantoms(6, augmentation=AUGMENTATION)
    items = shuffled(6, 0, seed=0, batch_size=2)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    alone = batches_of(dataset, items, batch_size=2)
    helped = batches_of(dataset, items, batch_size=2, workers=2)
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(alone, helped, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.matrix, b.matrix)
        assert [label.id for label in a.labels] == [label.id for label in b.labels]


def test_neither_workers_nor_a_cache_change_a_batch(tmp_path):
    sizes = [(150, 61), (90, 90), (97, 40), (64, 130)]
    records = [
        record_with_blob(tmp_path / f"{i}.png", size, (0.4 * size[1], 0.7 * size[0]), 4)
        for i, size in enumerate(sizes)
    ]
    size = (64, 32)
    held, cached = FilmList(records, FRONTAL, size), CachedFilms(records, FRONTAL, size, tmp_path / "cache")
    batches = []
    for films, workers in ((held, 0), (held, 2), (cached, 0), (cached, 2)):
        dataset = FilmDataset(films, FRONTAL, size, augmentation=AUGMENTATION, seed=3)
        items = shuffled(4, 1, seed=3, batch_size=2)
        batches.append(batches_of(dataset, items, batch_size=2, workers=workers))
    for others in zip(*batches, strict=True):
        for name in ("image", "points_xy", "states", "matrix"):
            first, *rest = (getattr(batch, name) for batch in others)
            for other in rest:
                torch.testing.assert_close(other, first, rtol=0, atol=0, equal_nan=True)


def cache_that_was_cut_off(tmp_path):
    """Five films in a cache, of which the last one's pixels are gone after it was opened, and its file."""
    records = [record_with_blob(tmp_path / f"{i}.png", (90, 50), (20, 40), 4) for i in range(5)]
    films = CachedFilms(records, FRONTAL, (64, 32), tmp_path / "cache", workers=1)
    (pixels,) = (tmp_path / "cache").glob(f"*/{PIXELS}")
    os.truncate(pixels, pixels.stat().st_size - 1)
    return FilmDataset(films, FRONTAL, (64, 32)), records[-1].image_path


@pytest.mark.parametrize("workers", [0, 2, 4])
def test_a_film_that_is_lost_in_mid_epoch_is_named_in_one_line_at_once(tmp_path, workers):
    dataset, lost = cache_that_was_cut_off(tmp_path)
    read = []
    started = time.perf_counter()
    with (
        pytest.raises(FilmError) as caught,
        open_batches(dataset, sequential(5), batch_size=2, workers=workers) as batches,
    ):
        read.extend(batch.labels[0].id for batch in batches)
    assert time.perf_counter() - started < 30  # starting the workers is most of it
    assert len(read) == 0 or read == ["0", "2"]
    assert str(caught.value).startswith(f"{lost}: its pixels in ")
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []  # also while the exception is held


def test_workers_are_no_copies_of_a_process_with_threads_and_end_with_the_block():
    with open_batches(phantoms(4), sequential(4), batch_size=1, workers=2) as batches:
        next(batches)
        workers = multiprocessing.active_children()
        assert len(workers) == 2
        assert {worker._start_method for worker in workers} <= {"forkserver", "spawn"}
    assert multiprocessing.active_children() == []


STARTS_WORKERS = """
if __name__ == "__main__":
    import multiprocessing, time
    from test_loader import phantoms
    from vertebra_kp.data.loader import open_batches, sequential

    with open_batches(phantoms(4), sequential(4), batch_size=1, workers=2) as batches:
        next(batches)
        print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
        time.sleep(600)
"""


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_workers_end_when_their_process_is_killed(tmp_path):
    (tmp_path / "program.py").write_text(STARTS_WORKERS)
    path = os.pathsep.join(map(str, (Path(__file__).parents[2], Path(__file__).parent)))
    program = subprocess.Popen(
        [sys.executable, tmp_path / "program.py"],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    workers = program.stdout.readline().split()
    assert len(workers) == 2
    for worker in workers:
        os.kill(int(worker), signal.SIGTERM)  # as a job scheduler does: ignored
    assert all(map(is_running, workers))
    program.kill()
    program.communicate()
    end = time.monotonic() + 20
    while any(map(is_running, workers)):
        assert time.monotonic() < end, "workers outlive their process"
        time.sleep(0.05)


def test_a_batch_moves_with_all_that_a_step_needs_and_keeps_its_way_back():
    batch = phantoms(2).batch(sequential(2))
    moved = batch.to(torch.device("meta"), memory_format=torch.channels_last)
    names = ("image", "points_xy", "states", "presence", "view", "slips")
    assert {getattr(moved, name).device.type for name in names} == {"meta"}
    assert moved.matrix is batch.matrix
    assert moved.labels is batch.labels


class BlobFinder(nn.Module):
    """Stands in for a perfect network: the map is the film itself, shrunk to the stride by averaging."""

    def __init__(self, channels, levels, stride):
        super().__init__()
        self.stride, self.channels, self.levels = stride, channels, levels
        self.device_marker = nn.Parameter(torch.zeros(1))

    def forward(self, image, *, return_attention=False):
        cells = F.avg_pool2d(image, self.stride)
        return SimpleNamespace(
            heatmap_logits=cells.clamp_min(1e-9).log().expand(-1, self.channels, -1, -1),
            presence_logits=torch.zeros(len(image), self.levels),
            class_logits={},
            attention={},
        )


class Oracle(BlobFinder):
    """Stands in for a perfect network: the exponent of the true Gaussian in every channel."""

    def __init__(self, points_xy, stride, sigma):
        super().__init__(points_xy.shape[1], FRONTAL.num_levels, stride)
        self.points_xy, self.sigma = points_xy, sigma

    def forward(self, image, *, return_attention=False):
        cells = self.points_xy / self.stride
        x = torch.arange(image.shape[-1] // self.stride) + 0.5 - cells[..., 0, None]
        y = torch.arange(image.shape[-2] // self.stride) + 0.5 - cells[..., 1, None]
        output = super().forward(image)
        output.heatmap_logits = -(x[..., None, :] ** 2 + y[..., :, None] ** 2) / (2 * self.sigma**2)
        return output


class TwoFaced(Oracle):
    """Knows the corners of a film, and those of its mirror image under their names there."""

    def __init__(self, film, points_xy, stride, sigma):
        super().__init__(points_xy, stride, sigma)
        self.film, self.points_of_film = film, points_xy

    def forward(self, image, *, return_attention=False):
        self.points_xy = self.points_of_film
        if not torch.equal(image, self.film):
            vertebrae = self.points_of_film.reshape(-1, 5, 4, 2)[:, :, [1, 0, 3, 2]]  # TR is TL in a mirror
            mirrored = torch.stack([image.shape[-1] - vertebrae[..., 0], vertebrae[..., 1]], dim=-1)
            self.points_xy = mirrored.flatten(1, 2)
        return super().forward(image)


def job(stride, sigma, *, flip=False) -> Config:
    return Config.model_validate(
        {
            "name": "job",
            "data": {"anatomy": "ap_lumbar"},
            "codec": {"sigma": sigma},
            "network": {"decoder": {"output_stride": stride}},
            "inference": {"flip": flip},
            "train": {"phases": [{"name": "all", "epochs": 1}]},
        }
    )


def record_with_blob(path, size, point, sigma) -> Record:
    """A film with one bright spot; every corner is labelled there."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    image = 250 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * sigma**2))
    cv2.imwrite(str(path), np.round(image).astype(np.uint8))
    points, states = label_arrays(FRONTAL)
    points[:], states[:] = point, State.LABELLED
    return Record(path.stem, path, path.stem, points, states)


# Height and width of the originals, with the network's: shrunk by much and by little, wide, enlarged, odd.
AWKWARD = [
    ((2013, 701), (256, 128)),
    ((1999, 1427), (256, 160)),
    ((641, 913), (160, 256)),
    ((331, 173), (256, 128)),
    ((97, 61), (128, 96)),
]


@pytest.mark.parametrize(("size", "input_size"), AWKWARD)
@pytest.mark.parametrize(("stride", "flip"), [(1, False), (2, False), (2, True)])
def test_a_spot_on_the_film_is_found_again_in_its_original_pixels(tmp_path, size, input_size, stride, flip):
    """Image, shrinking, letterbox, decoding and the way back, in one: nothing here knows the spot's place."""
    scale = min(input_size[0] / size[0], input_size[1] / size[1])
    point = np.array([0.413 * size[1] + 0.137, 0.577 * size[0] + 0.411])
    record = record_with_blob(tmp_path / "spot.png", size, point, sigma=5 / scale)  # 5 px for the network
    films = FilmList([record], FRONTAL, input_size)
    batch = FilmDataset(films, FRONTAL, input_size).batch(sequential(1))
    network = BlobFinder(FRONTAL.num_channels, FRONTAL.num_levels, stride).eval()
    config = job(stride, sigma=5 / stride, flip=flip)
    (prediction,) = predict_batch(network, batch, config)
    error = np.linalg.norm(prediction.points_xy_image - point, axis=-1)
    assert error.shape == (5, 4)
    assert error.max() < BACK_PX
    np.testing.assert_allclose(batch.labels[0].points_xy_image[0, 0], point, atol=1e-3)
    # The spot's own covariance, in px of the original; resampling widens it a little.
    np.testing.assert_allclose(prediction.covariances[0, 0] * scale**2, 25 * np.eye(2), atol=1.5)


@pytest.mark.parametrize(("size", "input_size"), AWKWARD)
@pytest.mark.parametrize(("stride", "sigma"), [(1, 2.7), (2, 1.5), (4, 1.0), (4, 2.0)])
def test_perfect_heatmaps_come_back_in_original_pixels(tmp_path, size, input_size, stride, sigma):
    points, states = label_arrays(FRONTAL)
    place = np.random.default_rng(3).uniform(0.2, 0.8, points.shape)
    points[:], states[:] = place * (size[1], size[0]), State.LABELLED
    cv2.imwrite(str(tmp_path / "film.png"), np.zeros(size, np.uint8))
    films = FilmList([Record("film", tmp_path / "film.png", "film", points, states)], FRONTAL, input_size)
    batch = FilmDataset(films, FRONTAL, input_size).batch(sequential(1))
    network = Oracle(batch.points_xy, stride, sigma).eval()
    (prediction,) = predict_batch(network, batch, job(stride, sigma))
    assert np.linalg.norm(prediction.points_xy_image - points, axis=-1).max() < BACK_PX
    scale = min(input_size[0] / size[0], input_size[1] / size[1])
    expected = np.eye(2) * (sigma * stride / scale) ** 2
    # Films are shrunk to whole pixels, which stretches one side by up to half a pixel in a hundred.
    np.testing.assert_allclose(prediction.covariances[2, 3] / expected[0, 0], np.eye(2), atol=0.02)


class SidedClasses(BlobFinder):
    """Calls the bright half of the film: a slip to that side at every level, AP with a certainty of its own."""

    def forward(self, image, *, return_attention=False):
        output = super().forward(image, return_attention=return_attention)
        half = image.shape[-1] // 2
        left = image[..., :half].sum(dim=(1, 2, 3)) > image[..., half:].sum(dim=(1, 2, 3))
        slip = torch.tensor([[0.1, 0.6, 0.2, 0.06, 0.04], [0.3, 0.1, 0.5, 0.05, 0.05]])[(~left).long()]
        view = torch.tensor([[0.9, 0.1], [0.6, 0.4]])[(~left).long()]
        output.class_logits = {"view": view.log(), "slip": slip.log()[:, None].expand(-1, self.levels, -1)}
        return output


@pytest.mark.parametrize("flip", [False, True])
def test_probabilities_of_the_mirrored_film_are_averaged_with_left_and_right_swapped_back(tmp_path, flip):
    record = record_with_blob(tmp_path / "film.png", (64, 32), (6.0, 20.0), 3)
    dataset = FilmDataset(FilmList([record], FRONTAL, (64, 32)), FRONTAL, (64, 32))
    (found,) = predict_batch(
        SidedClasses(FRONTAL.num_channels, FRONTAL.num_levels, 2), dataset.batch([(0, 0)]), job(2, 1.5, flip=flip)
    )
    # The spot lies at the left; at the right of the mirrored film, whose right slip is a left one.
    slip = [0.1, 0.6, 0.2, 0.06, 0.04] if not flip else [0.2, 0.55, 0.15, 0.055, 0.045]
    view = [0.9, 0.1] if not flip else [0.75, 0.25]
    np.testing.assert_allclose(found.slip_probabilities, np.tile(slip, (5, 1)), atol=1e-6)
    np.testing.assert_allclose(found.view_probabilities, view, atol=1e-6)


def test_a_network_without_classes_predicts_none(tmp_path):
    record = record_with_blob(tmp_path / "film.png", (64, 32), (6.0, 20.0), 3)
    dataset = FilmDataset(FilmList([record], FRONTAL, (64, 32)), FRONTAL, (64, 32))
    (found,) = predict_batch(
        BlobFinder(FRONTAL.num_channels, FRONTAL.num_levels, 2), dataset.batch([(0, 0)]), job(2, 1.5)
    )
    assert found.view_probabilities is found.slip_probabilities is None


def test_a_film_and_its_mirror_image_agree_on_every_corner():
    films = PhantomFilms(FRONTAL, "standard", 1, 2, (128, 96), fresh=False)
    batch = FilmDataset(films, FRONTAL, (128, 96)).batch(sequential(2))
    network = TwoFaced(batch.image, batch.points_xy, 2, 1.5).eval()
    predictions = predict_batch(network, batch, job(2, 1.5, flip=True))
    for prediction, points in zip(predictions, batch.points_xy, strict=True):
        np.testing.assert_allclose(FRONTAL.gather(prediction.points_xy), points, atol=BACK_PX)


def test_the_matrix_of_an_augmented_batch_leads_back_too():
    dataset = phantoms(4, augmentation=AUGMENTATION)
    batch = dataset.batch(sequential(4))
    for i, labels in enumerate(batch.labels):
        back = apply_affine(np.linalg.inv(batch.matrix[i].numpy()), batch.points_xy[i].numpy())
        seen = (batch.states[i] == State.LABELLED).numpy()
        assert np.abs(back - LATERAL.gather(labels.points_xy_image))[seen].max() < 1e-3


def test_a_corrected_corner_makes_other_films(tmp_path):
    record = record_with_blob(tmp_path / "film.png", (64, 48), (15.0, 20.0), 4)
    points, states = record.points_xy_image.copy(), record.states.copy()
    points[0, 0] += (2.0, 0.0)
    states[1, 1] = State.UNLABELLED
    corrected, unlabelled = replace(record, points_xy_image=points), replace(record, states=states)
    identities = {FilmList([r], FRONTAL, (64, 32)).identity for r in (record, corrected, unlabelled)}
    assert len(identities) == 3
    assert FilmList([record], FRONTAL, (64, 32)).identity in identities


def test_a_slip_makes_other_films_and_films_without_any_keep_their_identity(tmp_path):
    record = record_with_blob(tmp_path / "film.png", (64, 32), (15.0, 20.0), 4)
    slips = np.array([0, 0, 1, UNKNOWN, 0], np.int8)
    corrected = np.where(slips == 1, 2, slips).astype(np.int8)
    told = [None, slips, corrected]
    without, *others = (FilmList([replace(record, slips=s)], FRONTAL, (64, 32)).identity for s in told)
    assert len({without, *others}) == 3
    # As before films had slips: runs of that time can be resumed. (64, 32) is kept as it is.
    places = np.round(record.points_xy_image, 1).astype("<f4").tobytes()
    digest = hashlib.sha256(b"film" + places + record.states.tobytes()).hexdigest()
    assert without == f"1:{digest[:16]}"
    nobody_told = replace(record, slips=np.full(5, UNKNOWN, np.int8))
    assert FilmList([nobody_told], FRONTAL, (64, 32)).identity == without


def test_every_unreadable_film_is_named_at_once(tmp_path):
    good = record_with_blob(tmp_path / "good.png", (40, 30), (15.0, 20.0), 4)
    (tmp_path / "empty.png").write_bytes(b"")
    broken = [Record(n, tmp_path / n, n) for n in ("empty.png", "missing.png")]
    with pytest.raises(FilmError) as error:
        FilmList([broken[0], good, broken[1]], FRONTAL, (64, 32))
    assert "empty.png" in str(error.value)
    assert "missing.png" in str(error.value)
    assert "good.png" not in str(error.value)
