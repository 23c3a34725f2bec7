"""What export-weights gives away: no place of the machine that trained."""

import pytest

from vertebra_kp.cli.export_weights import without_places


@pytest.mark.parametrize("path", ["/home/anna/clinic/w.pth", "C:\\Users\\anna\\w.pth", "//server/clinic/w.pth"])
def test_of_an_absolute_path_the_last_name_is_left(path):
    config = {"network": {"backbone": {"name": "timm/net", "weights": path}}, "sources": [{"split_file": path}]}
    assert without_places(config) == {
        "network": {"backbone": {"name": "timm/net", "weights": "w.pth"}},
        "sources": [{"split_file": "w.pth"}],
    }


@pytest.mark.parametrize("value", ["imagenet", "runs/a/best.pt", 3, None, True, ["F1"], 0.5])
def test_everything_else_stays(value):
    assert without_places({"a": value}) == {"a": value}
