"""What the sections of a config have in common: strictness, and ranges of numbers."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
# Of runs: folders and commands are made of it.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]
Count = Annotated[int, Field(ge=0)]
TrackerName = Literal["tensorboard", "mlflow", "wandb"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class StartSection(Section):
    """The weights that a training begins with."""

    start_from: Path | None = None
    """A network whose weights this run begins with, the backbone's included: a checkpoint of another run, a
    published name, a file made by export-weights, or a state dict. All must fit: same network, same anatomy."""
    start_parts: Annotated[list[str], Field(min_length=1)] | None = None
    """Parts of the network that take those weights, such as [backbone, neck, decoder]; the others begin anew, so
    that heads of another anatomy do not matter. None: all parts."""

    @model_validator(mode="after")
    def _parts_of_something(self) -> Self:
        if self.start_parts is not None and self.start_from is None:
            raise ValueError(f"start_parts is {self.start_parts}, but start_from names no network; set it")
        return self
