"""``predictions.json`` has the layout of docs/predictions.schema.json, which its types generate."""

import json
from pathlib import Path

import numpy as np
import pytest
from one_prediction import a_prediction
from pydantic import TypeAdapter, ValidationError

from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.inference.predictions import Predictions, image_entry, write_predictions

SCHEMA_FILE = Path(__file__).parents[2] / "docs" / "predictions.schema.json"
LAYOUT = TypeAdapter(Predictions)


def test_the_committed_schema_is_that_of_the_types():
    """Write it anew with: json.dumps(TypeAdapter(Predictions).json_schema(), indent=1)."""
    assert json.loads(SCHEMA_FILE.read_text()) == LAYOUT.json_schema()


def test_what_is_written_has_that_layout(tmp_path):
    schema = SCHEMAS["la_lumbar"]
    points = np.random.default_rng(2).uniform(1, 60, (schema.num_levels, 4, 2))
    points[~schema.exists] = np.nan
    write_predictions([image_entry(a_prediction(points), schema)], tmp_path)
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert LAYOUT.validate_python(content) == content, "a key that the types lack would be left out"
    del content["films"][0]["levels"]["L3"]["presence"]
    with pytest.raises(ValidationError):
        LAYOUT.validate_python(content)
