"""Two films of one patient: by how many levels their labels name the same vertebrae differently."""

import csv
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import run

from vertebra_kp.audit.curved_reformation import LevelOffset, level_offset, reformat
from vertebra_kp.audit.level_agreement import Pair, compare_films, pair_named, pairs_of, shares_of
from vertebra_kp.core.anatomy import CORNERS, SCHEMAS, State
from vertebra_kp.core.geometry import apply_affine, compose, rotate, scale, translate, warp_image
from vertebra_kp.data.phantom import draw_film
from vertebra_kp.data.record import Record

SPINE = SCHEMAS["ap_whole_spine"]
SIZE = (480, 200)
AGAIN = compose(rotate(3.0, (100, 240)), scale(1.05, 0.98), translate(-4, 7))  # the patient stands otherwise


def film_and_again(seed):
    """A spine's film with its corners, and another exposure of it."""
    film = draw_film(SPINE, "standard", seed, 0, SIZE)
    again = warp_image(film.image, AGAIN, (500, 205)).astype(np.float32)
    again += np.random.default_rng(seed).normal(0, 4, again.shape)
    darker = (255 * (np.clip(again, 0, 255) / 255) ** 1.3).astype(np.uint8)
    return film.image, film.points_xy_image, darker, apply_affine(AGAIN, film.points_xy_image)


def renamed(points, levels):
    """Every vertebra by the name ``levels`` further down (up if negative); the last ones fall off."""
    new = np.full_like(points, np.nan)
    if levels > 0:
        new[levels:] = points[:-levels]
    else:
        new[:levels] = points[-levels:]
    return new


@pytest.mark.parametrize("seed", [3, 5, 8])
def test_films_named_alike_are_not_apart(seed):
    image, points, other, others = film_and_again(seed)
    offset = level_offset(reformat(image, points), reformat(other, others))
    assert abs(offset.levels) <= 0.25
    assert offset.clear


@pytest.mark.parametrize(("by", "expected"), [(-1, 1), (1, -1), (-2, 2)])
@pytest.mark.parametrize("seed", [3, 8])
def test_names_moved_by_levels_are_found_apart_by_them(seed, by, expected):
    # The second film's names lie `by` levels below what they should be: the first one's lie above them.
    image, points, other, others = film_and_again(seed)
    offset = level_offset(reformat(image, points), reformat(other, renamed(others, by)))
    assert offset.levels == pytest.approx(expected, abs=0.25)
    assert offset.clear


def test_offsets_are_those_of_the_definition():
    # Every stretch, shift to the side and shift along: the correlation of what both show, one by one.
    image, points, other, others = film_and_again(5)
    first, second = reformat(image, points), reformat(other, renamed(others, -1))
    height, width = first.visible.shape
    shifts = np.arange(-20, 21)  # two and a half levels of eight rows
    found = np.full(len(shifts), -1.0)
    for stretch, aside in product((0.96, 1.0, 1.04), (-3, 0, 3)):
        move = np.array([[1, 0, aside], [0, stretch, (1 - stretch) * height / 2]])
        picture = cv2.warpAffine(second.picture, move, (width, height))
        mask = second.visible.astype(np.uint8)
        visible = cv2.warpAffine(mask, move, (width, height), flags=cv2.INTER_NEAREST) > 0
        for i, down in enumerate(shifts):
            here = slice(max(0, down), height + min(0, down))
            there = slice(max(0, -down), height - max(0, down))
            shared = first.visible[here] & visible[there]
            if shared.sum() >= 1500:
                bands = zip(first.picture[here][shared].T, picture[there][shared].T, strict=True)
                found[i] = max(found[i], np.mean([np.corrcoef(*pair)[0, 1] for pair in bands]))
    best = found.argmax()
    offset = level_offset(first, second)
    assert offset.levels == shifts[best] / 8
    assert offset.correlation == pytest.approx(found[best], abs=1e-5)
    assert offset.margin == pytest.approx(found[best] - found[np.abs(shifts - shifts[best]) > 4].max(), abs=1e-5)


@pytest.mark.parametrize("seed", [3, 5, 8])
def test_five_levels_are_enough(seed):
    # L1..L5 of the first film; what the second calls so are T12..L4, so that it calls L4 by the fifth name.
    image, points, other, others = film_and_again(seed)
    offset = level_offset(reformat(image, points[12:17]), reformat(other, others[11:16]))
    assert offset.levels == pytest.approx(-1, abs=0.25)


def test_a_reformation_has_the_spine_in_the_middle_with_a_level_every_eight_rows():
    # Bars where the vertebrae of a bent spine are; in the reformation, bar i is at row 8 * (3 + i), as the line
    # starts three levels above the first, and at column 36 of the 72 that are four and a half levels to each side.
    levels = SPINE.num_levels
    y = 60 + 20 * np.arange(levels)
    x = 100 + 15 * np.sin(y / 120)
    corners = np.array([[-9, -6], [9, -6], [-9, 6], [9, 6]])
    points = np.stack([x, y], axis=1)[:, None] + corners
    image = np.zeros((480, 200), np.uint8)
    for bar in points:
        cv2.rectangle(image, *(tuple(round(v) for v in bar[k]) for k in (0, 3)), 255, -1)
    picture = reformat(image, points.astype(np.float32)).picture[..., 0]
    inner = slice(8 * 5, 8 * 18)
    rows = picture[inner, 33:39].mean(axis=1).reshape(-1, 8)
    assert (rows[:, 0] > rows[:, 4] + 0.5).all()  # at each level, not half a level on
    at_bars = picture[8 * 5 : 8 * 18 : 8] > 0
    middle = np.array([np.flatnonzero(row).mean() for row in at_bars])
    np.testing.assert_allclose(middle, 36, atol=1.5)


def test_too_few_vertebrae_tell_no_line():
    image, points, _, _ = film_and_again(3)
    few = np.full_like(points, np.nan)
    few[5:8] = points[5:8]
    assert reformat(image, few) is None


def write_films(folder):
    """Patient a twice, labelled a level apart; b twice, labelled alike; c once."""
    rows = []
    for patient, seed, by in (("a", 3, -1), ("b", 8, 0), ("c", 5, None)):
        image, points, other, others = film_and_again(seed)
        shown = [(image, points)]
        if by is not None:
            shown.append((other, renamed(others, by) if by else others))
        for k, (picture, corners) in enumerate(shown):
            name = f"{patient}{k}.png"
            cv2.imwrite(str(folder / name), picture)
            for level, places in zip(SPINE.levels, corners, strict=True):
                if np.isfinite(places).all():
                    rows += [
                        [name, patient, "", level, corner, *place, "labelled"]
                        for corner, place in zip(CORNERS, places, strict=True)
                    ]
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["file", "patient", "spacing_mm", "level", "corner", "x", "y", "state"], *rows]
        )


def level_agreement(*arguments):
    return run("level-agreement", "--source", "csv", "--anatomy", "ap_whole_spine", *arguments)


def test_the_command_tells_what_labels_and_network_name_apart(tmp_path):
    write_films(tmp_path)
    # The network names both films of a alike, it sits one level above the second one's labels; and both of b.
    films = tmp_path / "films.csv"
    films.write_text("id,shift_levels\na0.png,0.02\na1.png,-0.97\nb0.png,-1.0\nb1.png,-1.01\nc0.png,\n")
    done = level_agreement("--root", tmp_path, "--image-table", films, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "pairs.csv").open(newline="", encoding="utf-8") as file:
        pairs = {row["group"]: row for row in csv.DictReader(file)}
    assert set(pairs) == {"a", "b"}
    assert float(pairs["a"]["by_labels"]) == pytest.approx(1, abs=0.25)
    assert float(pairs["b"]["by_labels"]) == pytest.approx(0, abs=0.25)
    for row in pairs.values():
        assert float(row["by_network"]) == pytest.approx(0, abs=0.3)
    told = [line.split("%")[0].split()[-1] for line in done.stdout.splitlines() if "%" in line]
    # Pairs by labels, by network; films off: all but a0 of four, both of b's, one of a's.
    assert told == ["50.0", "0.0", "75.0", "100.0", "50.0"]


def pair(group, first, second, by_labels, clear=True):
    return Pair(group, first, second, by_labels, 0.5, 0.2 if clear else 0.01, clear, None)


def test_one_contradiction_outweighs_a_confirmation_and_unclear_pairs_say_nothing():
    pairs = [
        pair("p", "p1", "p2", 0.1),
        pair("p", "p2", "p3", -1.0),
        pair("q", "q1", "q2", 0.0),
        pair("r", "r1", "r2", 1.0, clear=False),
    ]
    shifts = {"p1": 1.0, "p2": 0.0, "p3": 1.0, "q1": 0.0, "q2": 0.1, "r1": 1.0, "r2": 0.0}
    labels, *films = shares_of(pairs, shifts)
    assert (labels.value, labels.number) == (pytest.approx(1 / 3), 3)
    # All five films of clear pairs; p1, q1, q2 are confirmed; p2 and p3 contradict each other.
    assert [(share.value, share.number) for share in films] == [
        (pytest.approx(2 / 5), 5),
        (pytest.approx(1 / 3), 3),
        (pytest.approx(1 / 2), 2),
    ]


def test_a_patient_gives_no_more_pairs_than_asked_for_and_every_film_takes_part():
    records = [Record(f"{patient}{k}", Path("x"), patient) for patient in "ab" for k in range(6)]
    records.append(Record("c0", Path("x"), "c"))
    for most, expected in (1, 6), (8, 8), (100, 15):  # 15 are all of six
        chosen = pairs_of(records, most)
        assert [first.group for first, _ in chosen] == ["a"] * expected + ["b"] * expected
        assert len({(first.id, second.id) for first, second in chosen}) == 2 * expected
        assert all(first.group == second.group and first.id < second.id for first, second in chosen)
        assert {record.id for pair in chosen for record in pair} == {record.id for record in records[:-1]}
    assert len(pairs_of(records[:2], 12)) == 1


@pytest.mark.parametrize(
    ("first_sits", "second_sits", "by_network"), [(1, 0, 0), (0, -1, 0), (-1, 0, 2), (0, 0, 1)]
)
def test_the_network_names_a_vertebra_above_its_label_where_it_sits_too_low(first_sits, second_sits, by_network):
    # L2 in the first and L1 in the second. Where the network sits a level too low on the first, it says L1, too.
    films = [Record(name, Path("x"), "p") for name in "ab"]
    named = pair_named(*films, LevelOffset(1.0, 0.5, 0.2), {"a": first_sits, "b": second_sits})
    assert named.by_network == by_network


def test_spines_that_have_nothing_in_common_are_not_clear():
    image, points, _, _ = film_and_again(3)
    noise = np.random.default_rng(0).integers(0, 256, image.shape).astype(np.uint8)
    offset = level_offset(reformat(image, points), reformat(noise, points))
    assert offset is None or not offset.clear
    blank = reformat(np.zeros_like(image), points)
    assert level_offset(blank, blank) is None or not level_offset(blank, blank).clear


def test_a_spine_off_the_film_cannot_be_compared():
    image, points, _, _ = film_and_again(3)
    visible = reformat(image, points)
    off = reformat(image, points + np.float32([1000, 0]))
    assert level_offset(visible, off) is None


def test_the_ends_of_what_is_labelled_do_not_matter():
    # T5 to L1 alone: the line is laid through five of them, and the names are as far apart as with all.
    image, points, other, others = film_and_again(8)
    part = np.full_like(points, np.nan)
    part[4:13] = points[4:13]
    offset = level_offset(reformat(image, part), reformat(other, renamed(others, -1)))
    assert offset.levels == pytest.approx(1, abs=0.25)


def test_the_films_edge_is_no_structure():
    # The same spine, cut off at other heights: edges that lie two levels apart do not pull the pictures along.
    image, points, other, others = film_and_again(8)
    step = np.median(np.diff(points.mean(axis=1)[:, 1]))
    top = round(float(points[0, :, 1].min() + 1.5 * step))
    offset = level_offset(reformat(image, points), reformat(other[top:], others - np.float32([0, top])))
    assert abs(offset.levels) <= 0.25
    assert offset.clear


def test_a_film_that_cannot_be_read_is_left_out(tmp_path):
    image, points, other, others = film_and_again(8)
    cv2.imwrite(str(tmp_path / "0.png"), image)
    cv2.imwrite(str(tmp_path / "1.png"), other)
    (tmp_path / "2.png").write_text("no film")
    states = np.full(points.shape[:2], State.LABELLED)
    shown = [points, others, points]
    records = [Record(str(k), tmp_path / f"{k}.png", "p", shown[k], states) for k in range(3)]
    ((first, second, offset),) = compare_films(records, SPINE)
    assert (first.id, second.id) == ("0", "1")
    assert abs(offset.levels) <= 0.25


def test_a_table_without_shifts_is_refused(tmp_path):
    write_films(tmp_path)
    films = tmp_path / "films.csv"
    films.write_text("id,mre_px\na0.png,3\n")
    done = level_agreement("--root", tmp_path, "--image-table", films, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "shift_levels" in done.stderr


def test_the_audit_tells_films_of_one_patient_that_are_named_apart(tmp_path):
    write_films(tmp_path)
    done = run(
        "audit", "--source", "csv", "--anatomy", "ap_whole_spine", "--root", tmp_path, "--out", tmp_path / "audit"
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "audit" / "audit.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["finding"] == "levels_named_apart"]
    # The ninth of T1..L5 is T9; the second film calls it by the name above.
    assert {row["film"]: row["proposal"] for row in rows} == {
        "a0.png": "its T9 is T8 in a1.png, of the same patient; 0 more agree with it",
        "a1.png": "its T9 is T10 in a0.png, of the same patient; 0 more agree with it",
    }


def test_a_table_of_other_films_is_refused(tmp_path):
    write_films(tmp_path)
    films = tmp_path / "films.csv"
    for content, told in (
        ("id,shift_levels\nz.png,0\n", "none of its images"),
        ("id,shift_levels\na0.png,x\n", "number"),
    ):
        films.write_text(content)
        done = level_agreement("--root", tmp_path, "--image-table", films, "--out", tmp_path / "out")
        assert done.returncode == 1
        assert told in done.stderr
