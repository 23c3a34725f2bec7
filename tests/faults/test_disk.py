"""A full disk, and folders in which nothing may be written: one line says so, and nothing that was is lost."""

import os
import random
import sys

import pytest
import reliability
from tries import JOBS

SHORT, LONG = 2, int(os.environ.get("VERTEBRA_KP_FULL_DISKS", "4"))
QUICK = ("train", "prepare a cache", "predict", "evaluate")
SMALLEST, LARGEST = 10, 3e6  # bytes of a file beyond which nothing is written

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files, forks")


def check_full(tried, times: int, seed: int) -> None:
    lot, survived = random.Random(seed), 0
    told = "one line, exit code 1 (3 of predict); started again with room, the result of an undisturbed run"
    try:
        for _ in range(times):
            tried.fresh()
            room = int(SMALLEST * (LARGEST / SMALLEST) ** lot.random())
            tried.run(file_size=room).check()
            tried.check_resumed(tried.job.kept)
            survived += 1
    finally:
        reliability.record("full disk", tried.job.name, cases=times, survived=survived, seen=told)


@pytest.mark.parametrize("name", QUICK)
def test_a_full_disk_is_one_line_and_costs_nothing_that_was(tries, name):
    check_full(tries(name), SHORT, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_a_disk_that_is_full_at_any_moment_costs_nothing_that_was(tries, name):
    check_full(tries(name), LONG, seed=4)


def commands_that_write(small):
    """Words for a folder that must not be written in."""
    network = ("--network", small.checkpoint, "--device", "cpu")
    labels = ("--source", "csv", "--anatomy", "la_lumbar", "--root", small.images)
    phantom = ("--source", "phantom", "--num-images", 1)
    return {
        "phantom": lambda out: ["phantom", "--num-images", 1, "--size", 64, 64, "--out", out / "new"],
        "split": lambda out: ["split", *labels, "--folds", 3, "--output-file", out / "split.json"],
        "convert": lambda out: ["convert", *labels, "--to", "coco", "--out", out / "new"],
        "audit": lambda out: ["audit", *labels, "--labels-only", "--out", out / "new"],
        "export-weights": lambda out: ["export-weights", *network[:2], "--output-file", out / "a.safetensors"],
        "report": lambda out: ["report", small.evaluation, "--output-file", out / "report.html"],
        "robustness": lambda out: ["robustness", *network, *phantom, "--kinds", "blur", "--out", out / "new"],
        "config-schema": lambda out: ["config-schema", "--output-file", out / "schema.json"],
    } | {
        name: lambda out, job=job: job.first(small, out / "new") for name, job in JOBS.items() if name != "ablate"
    }  # fmt: skip


def test_a_folder_that_is_read_only_is_told_in_one_line(nursery, small, place):
    out = place / "read only"
    out.mkdir(exist_ok=True)
    out.chmod(0o555)
    commands = commands_that_write(small)
    survived = 0
    try:
        for name, words in commands.items():
            ended = nursery.run(words(out), out, as_owner=True)
            assert ended.code in (1, 3), f"{name}: {ended.code} {ended.output[-800:]}"
            assert "Traceback" not in ended.output, f"{name}: {ended.output[-1500:]}"
            assert str(out) in ended.output, f"{name}: {ended.output[-800:]}"
            assert list(out.iterdir()) == []
            survived += 1
    finally:
        seen = "one line with the folder, exit code 1"
        reliability.record("read-only folders", "for results", cases=len(commands), survived=survived, seen=seen)


def test_images_in_a_read_only_folder_are_used(nursery, small, place):
    out = place / "writable"
    out.mkdir(exist_ok=True)
    out.chmod(0o777)
    folders = [small.folder, *(path for path in small.folder.rglob("*") if path.is_dir())]
    modes = {folder: folder.stat().st_mode for folder in folders}
    names, survived = ("train", "prepare a cache", "predict", "evaluate"), 0
    try:
        for folder in folders:
            folder.chmod(0o555)
        for name in names:
            ended = nursery.run(JOBS[name].first(small, out / name), out, as_owner=True)
            assert ended.code == 0, f"{name}: {ended.output[-800:]}"
            survived += 1
    finally:
        for folder, mode in modes.items():
            folder.chmod(mode)
        seen = "nothing: they are only read"
        reliability.record("read-only folders", "of images", cases=len(names), survived=survived, seen=seen)
