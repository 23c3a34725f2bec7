"""Named, frozen ranges that phantoms are drawn from: ``presets.yaml`` has the numbers."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from vertebra_kp.config.io import read_yaml

Range = tuple[float, float]  # drawn uniformly from low to high
MOST_JITTER_SD = 2.0  # what a healthy step between neighbours is cut off at


@dataclass(frozen=True)
class Preset:
    """How varied and how hard the phantoms are; a changed range is a new preset, never an edit of an old one.

    Units are in the names: ``_deg`` degrees, ``_mm`` millimetres at the detector, ``probability`` per film.
    """

    # the spine
    body_scale: Range  # factor on the mean adult's vertebrae, magnification included
    size_jitter: float  # SD of each width and height, as a fraction of it
    cobb_deg: Range  # of each scoliotic curve
    obliquity_deg: Range  # tilt of the whole patient (AP)
    tilt_jitter_deg: float  # SD of a vertebra's tilt about the smooth curve (AP)
    sacral_slope_deg: Range  # S1 superior endplate, anterior side down
    l1_slope_deg: Range  # L1 superior endplate, anterior side up; lordosis is the sum of both slopes
    # of lateral whole spines: slopes are drawn, so that the angles between them balance each other; the pelvis
    # then turns the trunk upright, which changes all slopes but that of C2
    t1_slope_deg: Range  # T1 superior endplate, anterior side down; L1's and T1's slopes make the kyphosis
    c2_slope_deg: Range  # C2 inferior endplate, anterior side down; C7's slope less it is the cervical lordosis
    alignment_jitter: float  # SD of the step between healthy neighbours, as a fraction of the endplate
    slip_probability: float
    slip_fraction: Range  # of the lower vertebra's superior endplate; the direction is drawn
    fracture_probability: float
    fractures: tuple[int, int]  # per fractured film, both ends included
    height_loss: Range  # fraction of a fractured wall's height
    concavity_mm: Range  # depth of a healthy endplate
    missing_probability: float
    anterior_right_probability: float
    # the frame
    margin_mm: Range  # film beyond the labelled corners, above and below
    side_margin_mm: float  # least film beside the corners
    shift_mm: Range  # sideways
    cut_probability: float
    cut_levels: Range  # vertebra steps lost at one end of a cut film
    collimation_probability: float
    shutter_mm: Range  # film covered by the collimator, at each of its four sides
    # the patient around it
    bone_density: Range  # factor on the attenuation of bone
    tissue_mm: Range  # thickness of the trunk along the beam
    gas_bubbles: tuple[int, int]
    metal_probability: float
    marker_probability: float
    # the exposure
    photons_per_mm2: Range  # at the detector without a patient
    scatter_to_primary: Range
    scatter_sigma_mm: Range
    blur_sigma_mm: Range
    # the display
    gamma: Range
    window_percentile: Range  # lower end: percentile of the log image shown as black
    contrast: Range  # fraction of the grey scale that the window fills
    compression: Range  # share of the slow changes that the display takes out, as clinical processing does


PRESETS = TypeAdapter(dict[str, Preset]).validate_python(read_yaml(Path(__file__).with_name("presets.yaml")))

# A step of so much of the endplate below is labelled a slip: half-way between the largest healthy step and the
# smallest drawn slip of all presets, so a label tells which of the two was drawn.
SLIP_FROM = (
    max(MOST_JITTER_SD * preset.alignment_jitter for preset in PRESETS.values())
    + min(preset.slip_fraction[0] for preset in PRESETS.values())
) / 2
