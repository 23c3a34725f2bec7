"""Whether settled names of levels contradict each other less than the labels do, on the same pairs of images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vertebra_kp.audit.level_agreement import Pair
from vertebra_kp.config.schema import Names
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import read_csv
from vertebra_kp.evaluation.metrics import SHIFTED_ABOVE, GroupedSample


@dataclass(frozen=True)
class Contradictions:
    """How often these names contradict each other, a row of ``settled.csv``.

    ``pairs`` are those of which both images are settled, ``clear`` those of them that tell, of which names lie a
    level or more apart in ``contradictions``: ``percent``, with its 95 % interval over patients from ``low`` to
    ``high`` (None for one patient, all None without a clear pair).
    """

    names: Names
    pairs: int
    clear: int
    contradictions: int
    percent: float | None
    low: float | None
    high: float | None


def count_contradictions(pairs: Sequence[Pair], offsets: Mapping[str, int]) -> list[Contradictions]:
    """Those of the labels and those of settled names; ``offsets`` of labels by image, as of ``label_offsets``."""
    settled = [pair for pair in pairs if pair.first in offsets and pair.second in offsets]
    clear = [pair for pair in settled if pair.clear]
    sample = GroupedSample([pair.group for pair in clear], resamples=1000)

    def row(names: Names, apart: list[float]) -> Contradictions:
        contradicted = [abs(levels) > SHIFTED_ABOVE for levels in apart]
        share, interval = sample.mean(contradicted, range(len(clear)))
        percents = [None if one is None else round(100 * one, 1) for one in (share, *(interval or (None, None)))]
        return Contradictions(names, len(settled), len(clear), sum(contradicted), *percents)

    by_labels = [pair.by_labels for pair in clear]
    # Where labels stand d levels too high, every vertebra is called by the name d levels below its own.
    by_settled = [pair.by_labels - offsets[pair.first] + offsets[pair.second] for pair in clear]
    return [row("labels", by_labels), row("settled", by_settled)]


def read_compared(path: Path) -> list[Pair]:
    """``pairs.csv`` of an earlier comparison. Raises UserError for a table of another kind."""
    rows = read_csv(path, dict[str, str], remedy="give pairs.csv of a comparison of names")
    try:
        return [_pair(row) for row in rows]
    except KeyError as error:
        raise UserError(f"{path}: has no column {error}; give pairs.csv of a comparison of names") from None
    except ValueError as error:
        raise UserError(f"{path}: levels, correlation and margin must be numbers ({error})") from None


def _pair(row: Mapping[str, str]) -> Pair:
    by_labels, correlation, better = (float(row[name]) for name in ("by_labels", "correlation", "better"))
    by_network = float(row["by_network"]) if row["by_network"] else None
    clear = row["clear"] == "True"
    return Pair(row["group"], row["first"], row["second"], by_labels, correlation, better, clear, by_network)
