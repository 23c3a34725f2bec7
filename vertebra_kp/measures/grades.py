"""Grades of slips and fractures, by thresholds that are named here and can be given."""

from bisect import bisect_left, bisect_right

# Below it a slip has grade 0: healthy steps reach it, and so does the noise of two corners.
SLIP_FROM_PERCENT = 5.0
MEYERDING_PERCENT = (25.0, 50.0, 75.0, 100.0)
GENANT_PERCENT = (20.0, 25.0, 40.0)


def meyerding(slip_percent: float, *, slip_from: float = SLIP_FROM_PERCENT) -> str:
    """Grade "0" below ``slip_from``, "I" up to 25 %, "II" to 50, "III" to 75, "IV" to 100, "V" beyond; either way.

    Source: Meyerding, Surg Gynecol Obstet 54, 1932; V (spondyloptosis) by later use.
    """
    size = abs(slip_percent)
    return "0" if size < slip_from else ("I", "II", "III", "IV", "V")[bisect_left(MEYERDING_PERCENT, size)]


def genant(loss_percent: float) -> str:
    """Grade "0" to "3" by the loss of height: mild from 20 %, moderate from 25, severe from 40.

    Source: Genant et al., J Bone Miner Res 8, 1993.
    """
    return str(bisect_right(GENANT_PERCENT, loss_percent))
