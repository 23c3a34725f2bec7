"""Keypoint queries: one per corner of the schema, the sum of its level and its corner."""

import pytest
import torch

from vertebra_kp.config.network import HeadConfig
from vertebra_kp.core.anatomy import CORNERS, SCHEMAS
from vertebra_kp.models.queries import QueryHead

DECODED, ENCODED = (2, 12, 16, 8), (2, 20, 4, 2)
SHIFT = torch.linspace(-1, 1, 32)  # not a constant, which a layer norm would take out


def head_of(anatomy: str = "la_lumbar", **fields) -> QueryHead:
    torch.manual_seed(3)
    settings = {"name": "queries", "width": 32, "heads": 4}
    return QueryHead(DECODED[1], ENCODED[1], SCHEMAS[anatomy], HeadConfig(**(settings | fields))).eval()


def maps(head: QueryHead, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return head(torch.randn(DECODED, generator=generator), torch.randn(ENCODED, generator=generator))


@pytest.mark.parametrize(("anatomy", "corners"), [("ap_lumbar", 20), ("la_lumbar", 22), ("ap_whole_spine", 68)])
def test_there_is_one_map_per_corner_of_the_schema(anatomy, corners):
    assert maps(head_of(anatomy)).shape == (2, corners, 16, 8)


def test_a_query_is_its_levels_embedding_plus_its_corners():
    head, schema = head_of(), SCHEMAS["la_lumbar"]
    with torch.no_grad():
        # Without rounds in between, what changes is what the changed embedding is part of.
        head.rounds = torch.nn.ModuleList()
        base = maps(head)
        head.level_embedding.weight[2] += SHIFT
        changed = (maps(head) - base).abs().flatten(2).amax(-1).amax(0) > 1e-4
    expected = [schema.levels[level] == "L3" for level, _ in schema.channels]
    assert changed.tolist() == expected
    with torch.no_grad():
        base = maps(head)
        head.corner_embedding.weight[3] += SHIFT
        changed = (maps(head) - base).abs().flatten(2).amax(-1).amax(0) > 1e-4
    assert changed.tolist() == [CORNERS[corner] == "BR" for _, corner in schema.channels]


@pytest.mark.parametrize("self_attention", [True, False])
def test_queries_hear_of_each_other_only_through_self_attention(self_attention):
    head = head_of(self_attention=self_attention)
    with torch.no_grad():
        base = maps(head)
        head.level_embedding.weight[0] += SHIFT
        moved = (maps(head) - base).abs().flatten(2).amax(-1).amax(0) > 1e-6
    first_level = torch.tensor([level == 0 for level, _ in SCHEMAS["la_lumbar"].channels])
    assert moved[first_level].all()
    assert moved[~first_level].any() == self_attention


def test_a_map_is_the_dot_product_of_its_query_with_the_decoded_features():
    head = head_of()
    decoded, encoded = torch.randn(DECODED), torch.randn(ENCODED)
    with torch.no_grad():
        head.bias.uniform_(-1, 1)
        one, two = head(decoded, encoded), head(2 * decoded, encoded)
    bias = head.bias.detach()[:, None, None]
    torch.testing.assert_close(two - bias, 2 * (one - bias), rtol=1e-5, atol=1e-5)


def test_rounds_are_built_as_many_as_asked_for():
    assert len(head_of(rounds=5).rounds) == 5
    assert len(head_of().rounds) == 3


def test_the_film_is_looked_at():
    head = head_of()
    decoded = torch.randn(DECODED)
    with torch.no_grad():
        assert not torch.equal(head(decoded, torch.zeros(ENCODED)), head(decoded, torch.ones(ENCODED)))
