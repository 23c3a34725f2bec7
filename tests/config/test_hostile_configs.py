"""Configs and overrides that nobody means: one line each, at once, and no more memory than a config needs."""

import resource
import time

import pytest
from shared_data import field_case

from vertebra_kp.config.io import MOST_BASES, ConfigError, find_config, load_config, read_yaml
from vertebra_kp.config.schema import Config

QUICKSTART = find_config("quickstart")
# Ten lists, each ten times the one before: a billion values in half a KiB.
BOMB = "a0: &a0 [0]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
MIB = 2**10  # in the unit of ru_maxrss


def problem(load, *arguments):
    """The one line of a refusal, which must come at once and take no memory."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError) as refused:
        load(*arguments)
    assert time.perf_counter() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * MIB
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500
    return str(refused.value)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.seed=nan", 'train.seed is "nan": wanted a whole number'),
        ("train.clip_norm=.inf", 'train.clip_norm is ".inf": wanted a number'),
        ("train.clip_norm=inf", 'train.clip_norm is "inf": wanted a number'),
        ("train.clip_norm=1e999", "1e999 is not a finite number"),
        ("train.seed=4294967296", "4294967296 is larger than 4294967295"),
        ("train.seed=-4294967296", "-4294967296 is larger than 4294967295"),
        ("train.seed=" + "9" * 5000, "is larger than 4294967295"),
        ("train.clip_norm=" + "9" * 5000 + ".0", "is not a finite number"),
        ("data.phantom.seed=1e30", "data.phantom.seed is 1e+30: wanted a whole number"),
        ("train.phases." + "9" * 5000 + ".epochs=1", "train.phases has no item"),
        ("train.phases.\u00b2.epochs=1", "train.phases has no item \u00b2"),
        ("train.seed=" + "[" * 5000, "nested more than 30 levels deep"),
        ("train=" + "{a: " * 2000, "nested more than 30 levels deep"),
        (".".join("a" * 1000) + "=1", "no setting lies more than 30 levels deep"),
        ('name="\\ud800"', "half a character"),
    ],
)
def test_a_value_that_no_setting_has_is_refused_in_one_line(override, told):
    line = problem(load_config, QUICKSTART, [override])
    assert line.startswith("override ")
    assert told in line
    assert "did you mean" not in line


def test_the_largest_seed_is_taken():
    assert load_config(QUICKSTART, ["train.seed=4294967295"]).train.seed == 2**32 - 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOMB, "values, at most 100000 are read"),
        ("a: " + "[" * 100_000, "x.yaml:1: nested more than 30 levels deep"),
        ("\n".join(" " * i + "a:" for i in range(200)), "x.yaml:31: nested more than 30 levels deep"),
        ("#" * 2**21, "is larger than 1048576 bytes"),
        ("a: &a [*a]", "recursive"),
    ],
)
def test_a_file_without_bounds_is_refused_in_one_line(tmp_path, text, told):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert told in problem(load_config, path)
    assert told in problem(read_yaml, path)


def test_anchors_that_a_person_writes_are_read(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("base: quickstart\ncodec: {sigma: &s 2.5}\naugment: {blur_px: *s}\n")
    config = load_config(path)
    assert config.codec.sigma == config.augment.blur_px == 2.5


def test_files_that_build_on_each_other_without_end_are_refused(tmp_path):
    for i in range(1500):
        (tmp_path / f"{i}.yaml").write_text(f"base: {i + 1}.yaml\n")
    line = problem(load_config, tmp_path / "0.yaml")
    assert f"{MOST_BASES}.yaml:1: more than {MOST_BASES} files build on each other" in line


def test_a_config_in_a_file_of_somebody_elses_holds_only_numbers():
    plain = load_config(QUICKSTART).model_dump(mode="json")
    plain["train"]["clip_norm"] = float("nan")
    with pytest.raises(ValueError, match="finite number"):
        Config.model_validate(plain, strict=False)


def test_the_bomb_that_a_red_team_made_is_refused_in_one_line():
    assert "values, at most 100000 are read" in problem(load_config, field_case("red") / "bomb.yaml")
