"""Instability between two vertebrae, from a film in flexion and one in extension."""

from dataclasses import dataclass

from vertebra_kp.measures.measurement import Measurement


@dataclass(frozen=True)
class Criterion:
    """Unstable beyond either: ``translation_mm`` of the slip, ``angle_deg`` of the disc, between the two films.

    The defaults are a convention among several (White and Panjabi 1990 give 4.5 mm and 15 to 25 degrees for the
    lumbar spine, others 3 mm and 10 degrees): name the criterion beside the result.
    """

    translation_mm: float = 3.0
    angle_deg: float = 12.0


@dataclass(frozen=True)
class Instability:
    """Change of one segment ``at``; a part is None, with the ``reasons``, where a film does not show it.

    ``unstable`` is True as soon as one part is beyond the criterion, False only where both are known and below it.
    """

    at: str
    translation_mm: float | None
    angle_deg: float | None
    unstable: bool | None
    reasons: tuple[str, ...]


def instability(
    flexion: list[Measurement], extension: list[Measurement], criterion: Criterion | None = None
) -> list[Instability]:
    """Every segment that the two films' lateral measurements have in common."""
    criterion = criterion or Criterion()
    films = {"flexion": {m.key: m for m in flexion}, "extension": {m.key: m for m in extension}}
    limits = {"slip_mm": criterion.translation_mm, "disc_angle": criterion.angle_deg}
    found = []
    for at in [at for name, at in films["flexion"] if name == "disc_angle" and (name, at) in films["extension"]]:
        changes: dict[str, float | None] = {}
        reasons: list[str] = []
        for part in limits:
            pair = {film: of_film[part, at] for film, of_film in films.items()}
            reasons += [f"{part} in {film}: {m.reason}" for film, m in pair.items() if m.reason]
            values = [m.value for m in pair.values() if m.value is not None]
            changes[part] = abs(values[0] - values[1]) if len(values) == 2 else None
        beyond = [None if change is None else change > limits[part] for part, change in changes.items()]
        unstable = True if True in beyond else None if None in beyond else False
        found.append(Instability(at, changes["slip_mm"], changes["disc_angle"], unstable, tuple(reasons)))
    return found
