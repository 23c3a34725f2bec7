"""Configs are read strictly, composed as written, and every mistake is told in plain words."""

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vertebra_kp.cli.main import main
from vertebra_kp.config.io import ConfigError, config_json_schema, load_config, load_job, read_yaml, save_config
from vertebra_kp.config.schema import Config
from vertebra_kp.config.spine import sources_kind

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "configs"
SHIPPED = sorted(path.name for path in CONFIGS.glob("*.yaml") if path.name != "base.yaml")

MINIMAL = """\
name: tiny
train:
  phases:
    - name: only
      epochs: 2
"""


@pytest.fixture
def write(tmp_path):
    def write_file(text: str, name: str = "job.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def problems(path: Path, *overrides: str) -> list[str]:
    """Lines of the error, without the folder of the file."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    lines = str(caught.value).splitlines()
    assert tuple(lines) == caught.value.problems
    return [line.replace(f"{path.parent}/", "") for line in lines]


# --- shipped files --------------------------------------------------------------------------------------


def test_every_job_of_the_issue_is_shipped():
    jobs = {"aasce", "aasce_cpu", "buu_lspine_la", "buu_lspine_ap", "quickstart", "classification"}
    assert jobs <= {Path(name).stem for name in SHIPPED}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_loads_under_its_own_name(name):
    assert load_job(CONFIGS / name).name == Path(name).stem


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_says_command_and_hardware_at_its_head(name):
    text = (CONFIGS / name).read_text(encoding="utf-8")
    head = re.match(r"(#.*\n)+", text)[0]
    assert f"vertebra-kp train --config {Path(name).stem}" in head
    assert "Hardware:" in head


def test_base_lacks_only_what_each_job_must_say():
    missing = [line.split(": ", 1)[1] for line in problems(CONFIGS / "base.yaml")]
    assert missing == ["name is missing: add it", "train.phases is missing: add it"]


def test_no_film_of_aasce_trains_and_validates():
    for name in ("aasce.yaml", "aasce_cpu.yaml"):
        data = load_config(CONFIGS / name).data
        assert sorted(data.train_splits + data.validation_splits) == [f"fold{i}" for i in range(5)]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_saved_config_loads_equal(name, tmp_path):
    config = load_job(CONFIGS / name)
    save_config(config, tmp_path / "config.yaml")
    assert load_job(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("name", ["1e5", "on", "1_000", "007", "null", "0.5", "2024-01-02", "1e-4"])
def test_text_that_looks_like_something_else_survives_saving(name, write, tmp_path):
    config = load_config(write(MINIMAL), [f'name="{name}"', f'data.train_splits=["{name}"]'])
    assert config.name == name
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config


# --- YAML -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 1 / 10_000),
        ("1E5", 100_000.0),
        ("1.e-3", 1 / 1000),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("+2.5e+1", 25.0),
        ("3", 3.0),
    ],
)
def test_numbers_are_read_as_people_write_them(written, value, write):
    config = load_config(write(MINIMAL + f"      lr: {written}\n"))
    assert config.train.phases[0].lr == value


def test_whole_numbers_may_have_underscores_and_none_is_octal(write):
    config = load_config(write(MINIMAL + "  seed: 1_000_003\n"))
    assert config.train.seed == 1_000_003
    assert problems(write(MINIMAL + "  seed: 010\n")) == [
        'job.yaml:6: train.seed is "010": wanted a whole number; did you mean 10?'
    ]


@pytest.mark.parametrize(
    ("written", "meant"), [("yes", "true"), ("on", "true"), ("No", "false"), ("off", "false")]
)
def test_only_true_and_false_are_booleans(written, meant, write):
    path = write(MINIMAL + f"augment:\n  flip: {written}\n")
    assert problems(path) == [
        f'job.yaml:7: augment.flip is "{written}": wanted true or false; did you mean {meant}?'
    ]


def test_words_that_other_readers_take_for_booleans_are_text(write):
    config = load_config(write(MINIMAL + "data:\n  train_splits: [on, off, yes, no]\n"))
    assert config.data.train_splits == ["on", "off", "yes", "no"]


def test_an_anchor_repeats_a_value_without_tying_the_copies_together(write):
    text = "name: x\ntrain:\n  phases:\n    - &first {name: a, epochs: 1}\n    - *first\n"
    config = load_config(write(text), ["train.phases.1.name=b", "train.phases.1.epochs=7"])
    assert [(phase.name, phase.epochs) for phase in config.train.phases] == [("a", 1), ("b", 7)]


# --- composition ----------------------------------------------------------------------------------------


def test_mappings_merge_deeply_and_lists_replace(write):
    write(MINIMAL + "data: {workers: 7, phantom: {films: 9, seed: 4}}\naugment: {gamma: 0.7}\n", "a.yaml")
    write("base: a.yaml\ndata: {phantom: {films: 11}}\nnetwork: {decoder: {skips: [F1, F2]}}\n", "b.yaml")
    top = write(
        "base: b.yaml\nname: top\nnetwork: {decoder: {skips: [F3]}}\n"
        "train: {seed: 5, phases: [{name: z, epochs: 1}]}\n"
    )
    config = load_config(top)
    assert config.name == "top"
    assert (config.data.workers, config.data.phantom.films, config.data.phantom.seed) == (7, 11, 4)
    assert config.augment.gamma == 0.7
    assert config.network.decoder.skips == ["F3"]
    assert [phase.name for phase in config.train.phases] == ["z"]
    assert config.train.seed == 5


def test_base_is_relative_to_the_file_that_says_it(write, tmp_path, monkeypatch):
    write(MINIMAL, "common.yaml")
    path = write("base: ../common.yaml\n", "jobs/x.yaml")
    monkeypatch.chdir(tmp_path / "jobs")
    assert load_config(path).name == load_config(Path("x.yaml")).name == "tiny"


def test_paths_in_a_config_stay_as_written(write):
    splits = "split_file: a/s.json, train_splits: [a], validation_splits: [b]"
    path = write(MINIMAL + f"data: {{root: films/aasce, source: csv, {splits}}}\n")
    data = load_config(path).data
    assert (str(data.root), data.split_file) == ("films/aasce", "a/s.json")


def test_a_circle_of_bases_is_shown(write):
    path = write("base: b.yaml\n", "a.yaml")
    write("base: a.yaml\n", "b.yaml")
    assert problems(path) == ["b.yaml:1: base goes round in a circle: a.yaml -> b.yaml -> a.yaml"]


def test_a_problem_names_the_file_that_has_it(write):
    write(MINIMAL + "codec:\n  sigma: 0\n", "under.yaml")
    path = write("base: under.yaml\nloss:\n  heatmap: cross_entropi\n")
    assert problems(path) == [
        "under.yaml:7: codec.sigma is 0: wanted at least 0.9",
        "job.yaml:3: loss.heatmap is \"cross_entropi\": wanted 'cross_entropy', 'mse' or 'adaptive_wing'; "
        "did you mean cross_entropy?",
    ]


def test_a_missing_field_is_missed_in_the_list_that_replaced_the_complete_one(write):
    write(MINIMAL, "under.yaml")
    path = write("base: under.yaml\ntrain:\n  phases:\n    - name: only\n")
    assert problems(path) == ["job.yaml:4: train.phases.0.epochs is missing: add it"]
    path = write("base: under.yaml\n")
    assert problems(path, "train.phases=[{name: only}]") == [
        "override train.phases=[{name: only}]: train.phases.0.epochs is missing: add it"
    ]


def test_a_file_may_begin_with_a_byte_order_mark(write):
    assert load_config(write("\ufeff" + MINIMAL)).name == "tiny"


# --- overrides ------------------------------------------------------------------------------------------


def test_an_override_may_name_an_item_of_a_list(write):
    path = write(MINIMAL)
    overrides = ["train.phases.0.epochs=3", "data.input_size.0=512", "network.decoder.channels.4=8"]
    config = load_config(path, overrides)
    assert config.train.phases[0].epochs == 3
    assert config.data.input_size == (512, 128)  # the default's width stays
    assert config.network.decoder.channels == [256, 128, 64, 32, 8]


def test_the_last_override_wins_over_earlier_ones_and_the_file(write):
    path = write(MINIMAL + "  seed: 1\n")
    assert load_config(path, ["train.seed=2", "train.seed=3"]).train.seed == 3


def test_overrides_do_not_change_the_defaults(write):
    path = write(MINIMAL)
    load_config(path, ["network.decoder.channels.0=1"])
    assert load_config(path).network.decoder.channels[0] == 256


FINITE = st.floats(1e-12, 1e12, allow_nan=False)
OVERRIDES = {
    "train.phases.0.lr": FINITE,
    "train.phases.0.epochs": st.integers(1, 10**6),
    "train.clip_norm": st.none() | FINITE,
    "train.compile": st.booleans(),
    "data.phantom.films": st.integers(1, 10**6),
    "data.root": st.none() | st.text("abe19._-", min_size=1, max_size=6),
    "data.train_splits": st.lists(st.sampled_from(["on", "1e5", "fold 1", "~", "a: b", "#", "é"]), max_size=3),
    "data.input_size": st.tuples(st.integers(1, 9), st.integers(1, 9)).map(lambda s: [32 * i for i in s]),
    "codec": st.fixed_dictionaries({"sigma": st.floats(0.9, 16)}),
    "network.decoder.skips": st.lists(st.sampled_from(["F1", "F2", "F3", "S16"])),
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.fixed_dictionaries({}, optional=OVERRIDES))
def test_an_override_equals_writing_the_value_in_the_file(changes, write):
    under = "codec: {decode: dark}\ndata: {workers: 1}\n"
    values = yaml.safe_load(MINIMAL + under)
    for dotted, value in changes.items():
        *path, last = [int(key) if key.isdigit() else key for key in dotted.split(".")]
        section = values
        for key in path:
            section = section[key] if isinstance(section, list) else section.setdefault(key, {})
        section[last] = section[last] | value if isinstance(value, dict) else value
    written = load_config(write(json.dumps(values), "written.yaml"))
    overrides = [f"{dotted}={json.dumps(value)}" for dotted, value in changes.items()]
    assert load_config(write(MINIMAL + under), overrides) == written


# --- mistakes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("agument: {flip: true}", "job.yaml:6: agument is no known key; did you mean augment?"),
        ("data: {sorce: csv}", "job.yaml:6: data.sorce is no known key; did you mean data.source?"),
        ("batch_size: 8", "job.yaml:6: batch_size is no known key; did you mean train.batch_size?"),
        ("lr: 8", "job.yaml:6: lr is no known key; did you mean train.phases.0.lr?"),
        ("name: again", "job.yaml:6: name is written twice, in lines 1 and 6; keep one"),
        ("datas:\n  workers: 5", "job.yaml:6: datas is no known key; did you mean data?"),
        ("data: 5", "job.yaml:6: data is 5: wanted a mapping of keys to values"),
        ("data: {workers: 2.0}", "job.yaml:6: data.workers is 2.0: wanted a whole number; did you mean 2?"),
        ("data: {workers: true}", "job.yaml:6: data.workers is true: wanted a whole number"),
        ("data: {workers: 65}", "job.yaml:6: data.workers is 65: wanted at most 64"),
        ("augment: {flip: 1}", "job.yaml:6: augment.flip is 1: wanted true or false; did you mean true?"),
        (
            'codec: {sigma: "2e0"}',
            'job.yaml:6: codec.sigma is "2e0": wanted a number; did you mean 2.0?',
        ),
        ("codec: {sigma: 1e999}", "job.yaml:6: not readable as YAML: 1e999 is not a finite number"),
        ("codec: {sigma: .inf}", 'job.yaml:6: codec.sigma is ".inf": wanted a number'),
        (
            "network: {decoder: {skips: F1}}",
            'job.yaml:6: network.decoder.skips is "F1": wanted a list; did you mean ["F1"]?',
        ),
        (
            "network: {backbone: {projection: [64]}}",
            "job.yaml:6: network.backbone.projection is [64]: wanted a mapping of keys to values",
        ),
        (
            "network: {decoder: {pyramid: {channels: 64}}}",
            "job.yaml:6: network.decoder.pyramid.channels is not read by unet; leave it out",
        ),
        (
            "network: {decoder: {name: fpn, channels: [8, 8, 8, 8]}}",
            "job.yaml:6: network.decoder.channels is not read by fpn, whose width is pyramid.channels; "
            "leave it out",
        ),
        (
            "network: {head: {rounds: 5}}",
            "job.yaml:6: network.head.rounds is not read by the head conv; set name to queries or leave it out",
        ),
        (
            "network: {decoder: {channels: []}}",
            "job.yaml:6: network.decoder.channels is []: wanted a length of at least 1",
        ),
        (
            "network: {backbone: {name: resnet35}}",
            "job.yaml:6: network.backbone.name: no backbone resnet35; take one of efficientnet_v2_s, vgg16, "
            "vgg16_bn, resnet34, resnet50, convnext_small, or timm/NAME",
        ),
        (
            "data: {input_size: [250, 128]}",
            "job.yaml:6: data.input_size must be divisible by 32, got (250, 128); pad to (256, 128)",
        ),
        (
            "augment:\n  flip: true",
            "job.yaml:7: augment.flip is on, but a mirrored la_lumbar film swaps anterior and posterior; "
            "set augment.flip to false",
        ),
        (
            "data: {anatomy: ap_whole_spine, phantom: {other_view: 0.3}}",
            "job.yaml:6: data.phantom.other_view is 0.3, but ap_whole_spine is drawn from one side only; "
            "set it to 0 or anatomy to ap_lumbar or la_lumbar",
        ),
        ("1: x", "job.yaml:6: 1: a key must be text; quote it"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_with_place_value_and_remedy(extra, expected, write):
    found = problems(write(MINIMAL + extra + "\n"))
    assert expected in found
    assert len(found) == 1 or extra == "1: x"  # which is an unknown key besides


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trian.seed=3", "trian is no known key; did you mean train?"),
        ("train.sede=3", "train.sede is no known key; did you mean train.seed?"),
        ("train.seed", "wanted KEY=VALUE, such as train.seed=1"),
        ("=3", "wanted KEY=VALUE, such as train.seed=1"),
        ("train.seed=x", 'train.seed is "x": wanted a whole number'),
        ("name.x=3", 'name is "tiny": it has no x'),
        (
            "train.phases.1.lr=3",
            "train.phases has no item 1: its length is 1, the first is 0; or set the whole list",
        ),
        ("data={workers: 1, workers: 2}", "data.workers is written twice, in lines 1 and 1; keep one"),
        ("name=12", "name is 12: wanted text; put it in quotes"),
        (
            "data.input_size.0=250",
            "data.input_size must be divisible by 32, got (250, 128); pad to (256, 128)",
        ),
    ],
)
def test_a_mistake_in_an_override_repeats_the_override(override, expected, write):
    assert problems(write(MINIMAL), override) == [f"override {override}: {expected}"]


def test_an_override_that_is_not_yaml_is_one_line(write):
    (line,) = problems(write(MINIMAL), "codec.sigma=[1")
    assert line.startswith("override codec.sigma=[1: not readable as YAML: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "job.yaml: is empty"),
        ("# only a comment\n", "job.yaml: is empty"),
        ("- a\n- b\n", 'job.yaml: is ["a", "b"]: wanted a mapping'),
        ("name: x\ntrain: [1\n", "job.yaml:3: not readable as YAML: "),
        ("name: x\n\tseed: 1\n", "job.yaml:2: not readable as YAML: "),
        ("name: x\n---\nname: y\n", "job.yaml:2: not readable as YAML: "),
        ("name: !!python/name:os.system\n", "job.yaml:1: not readable as YAML: "),
        ("name: &a [*a]\n", "job.yaml:1: not readable as YAML: "),
        ("name: a\nseed: \x07\n", "job.yaml:2: not readable as YAML: "),
        ("base: nowhere.yaml\n", "job.yaml:1: nowhere.yaml: no such file"),
        ("base: [a.yaml]\n", 'job.yaml:1: base is ["a.yaml"]: wanted the path of one file'),
    ],
)
def test_a_file_that_is_no_config_is_one_line(text, expected, write):
    (line,) = problems(write(text))
    assert line.startswith(expected)


def test_a_missing_file_names_one_that_is_spelled_alike(write):
    path = write(MINIMAL, "quickstart.yaml")
    assert problems(path.with_name("quikstart.yaml")) == [
        "quikstart.yaml: no such file; did you mean quickstart.yaml?"
    ]


def test_a_folder_and_a_film_are_no_configs(tmp_path):
    (tmp_path / "film.yaml").write_bytes(b"\xff\xd8\xff\xe0")
    for name in ("film.yaml", "."):
        (line,) = problems(tmp_path / name)
        assert "cannot be read as text" in line


def test_rules_between_fields_are_told_together(write):
    path = write("name: x\ndata: {source: csv, input_size: [250, 128]}\ntrain: {phases: [{name: a, epochs: 1}]}\n")
    told = "\n".join(problems(path))
    for part in ("pad to (256, 128)", "split_file is needed", "train_splits is", "validation_splits is"):
        assert part in told


def test_all_problems_are_told_at_once_without_words_of_the_validator(write):
    path = write(
        "nmae: x\n"
        "data: {source: asce, workers: -1}\n"
        "data: {workers: -2}\n"
        "augment: {flip: on}\n"
        "network: {backbone: {weights: 5}}\n"
        "train: {seed: x, phases: [{name: A, lr: 0}]}\n"
    )
    found = problems(path, "trian.seed=1", "train.batch_size=0", "codec.sigma=[", "train.phases.3.lr=1")
    named = [
        "data is written twice",
        "nmae",
        "name is missing",
        "data.workers",
        "augment.flip",
        "network.backbone.weights is 5: wanted 'none' or 'imagenet' or",
        "train.seed",
        "train.phases.0.name",
        "train.phases.0.epochs is missing",
        "train.phases.0.lr",
        "trian",
        "train.batch_size",
        "codec.sigma",
        "train.phases has no item 3",
    ]
    for name in named:
        assert sum(f": {name}" in line or f"override {name}" in line for line in found) == 1, name
    assert len(found) == len(named)
    assert not [line for line in found if "pydantic" in line or "http" in line or "type=" in line]


# --- schema for editors ---------------------------------------------------------------------------------


def test_the_schema_accepts_every_shipped_file_and_refuses_a_misspelt_one():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(config_json_schema())
    for path in CONFIGS.glob("*.yaml"):
        if sources_kind(read_yaml(path)):
            continue  # its schema is another: that of a network of several sources
        # PyYAML alone reads 1e-3 as text, our reader and editors as a number.
        text = re.sub(r"\b(\d)e-(\d)", r"\1.0e-\2", path.read_text(encoding="utf-8"))
        written = yaml.safe_load(text)
        assert not list(validator.iter_errors(written)), path.name
    assert list(validator.iter_errors({"nmae": "x"}))
    assert list(validator.iter_errors({"train": {"phases": [{"name": "a"}]}}))  # epochs


def test_the_schema_describes_the_fields_in_words():
    definitions = config_json_schema()["$defs"]
    assert "heatmap cells" in definitions["CodecConfig"]["properties"]["sigma"]["description"]
    assert set(config_json_schema()["properties"]) == {"base", *Config.model_fields}


def test_the_command_writes_the_schema(tmp_path):
    out = tmp_path / "schema.json"
    assert main(["config-schema", "--output-file", str(out)]) == 0
    assert json.loads(out.read_text()) == config_json_schema()
