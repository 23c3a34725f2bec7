"""Synthetic images as films, drawn when asked for."""

import math

import numpy as np

from vertebra_kp.core.anatomy import OTHER_VIEW, SCHEMAS, VIEWS, Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.films import Film
from vertebra_kp.data.phantom import ANATOMIES, draw_film
from vertebra_kp.data.record import label_arrays, unknown_slips


class PhantomFilms:
    """Phantom films drawn when asked for; ``fresh`` draws others in every epoch.

    A share of ``other_view`` of them, the same ones every time, shows the same levels from the other side: of
    those the view is known, corners and slips are not. Raises UserError for a schema that the phantom does not
    draw, or not from another side.
    """

    def __init__(
        self,
        schema: Schema,
        preset: str,
        seed: int,
        films: int,
        size: tuple[int, int],
        *,
        fresh: bool,
        other_view: float = 0.0,
    ) -> None:
        if schema.name not in ANATOMIES:
            raise UserError(
                f"there are no phantoms of anatomy {schema.name}, only of {', '.join(ANATOMIES)}; name real films "
                "(data.source, and films: data in every phase)"
            )
        if other_view and schema.name not in OTHER_VIEW:
            raise UserError(
                f"there are no phantoms of {schema.name} from another side, only of {', '.join(OTHER_VIEW)}; "
                "set other_view to 0"
            )
        self.schema, self.preset, self.seed, self.size = schema, preset, seed, size
        self.films, self.fresh, self.other_view = films, fresh, other_view

    def __len__(self) -> int:
        return self.films

    @property
    def identity(self) -> str:
        other = f"-{self.other_view:g}-{OTHER_VIEW[self.schema.name]}" if self.other_view else ""
        return f"{self.films}:{self.schema.name}-{self.preset}-{self.seed}{other}"

    def at(self, epoch: int, index: int) -> Film:
        if self.fresh:
            index += epoch * self.films
        name = f"phantom-{self.preset}-{self.seed}-{index}"
        # Spread evenly: of any run of films, the share within one film.
        if math.floor((index + 1) * self.other_view) > math.floor(index * self.other_view):
            shown = SCHEMAS[OTHER_VIEW[self.schema.name]]
            name = f"{name}-{shown.view}"
        else:
            shown = self.schema
        drawn = draw_film(shown, self.preset, self.seed, index, self.size)
        points, states, slips, side = drawn.points_xy_image, drawn.states, drawn.slips, drawn.anterior_side
        if shown is not self.schema:
            (points, states), slips, side = label_arrays(self.schema), unknown_slips(self.schema), None
        return Film(
            id=name,
            file=name,
            group=name,
            image=drawn.image,
            points_xy=points,
            states=states,
            slips=slips,
            view=VIEWS.index(shown.view),
            to_image=np.eye(3),
            size=self.size,
            spacing_mm=drawn.spacing_mm,
            anterior_side=side,
        )
