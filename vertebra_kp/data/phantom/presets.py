"""Named, frozen ranges that phantom films are drawn from."""

from dataclasses import dataclass

Range = tuple[float, float]  # drawn uniformly from low to high
MOST_JITTER_SD = 2.0  # what a healthy step between neighbours is cut off at


@dataclass(frozen=True)
class Preset:
    """How varied and how hard the films are; a changed range is a new preset, never an edit of an old one.

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


PRESETS: dict[str, Preset] = {
    "standard": Preset(
        body_scale=(0.95, 1.15),
        size_jitter=0.02,
        cobb_deg=(5.0, 35.0),
        obliquity_deg=(-3.0, 3.0),
        tilt_jitter_deg=0.8,
        sacral_slope_deg=(25.0, 48.0),
        l1_slope_deg=(2.0, 25.0),
        alignment_jitter=0.012,
        slip_probability=0.25,
        slip_fraction=(0.06, 0.22),
        fracture_probability=0.25,
        fractures=(1, 1),
        height_loss=(0.1, 0.3),
        concavity_mm=(0.5, 2.0),
        missing_probability=0.0,
        anterior_right_probability=0.0,
        margin_mm=(30.0, 60.0),
        side_margin_mm=15.0,
        shift_mm=(-12.0, 12.0),
        cut_probability=0.0,
        cut_levels=(0.0, 0.0),
        collimation_probability=0.3,
        shutter_mm=(2.0, 6.0),
        bone_density=(0.85, 1.15),
        tissue_mm=(170.0, 230.0),
        gas_bubbles=(0, 8),
        metal_probability=0.0,
        marker_probability=0.6,
        photons_per_mm2=(6.0e4, 2.0e5),
        scatter_to_primary=(0.1, 0.5),
        scatter_sigma_mm=(25.0, 50.0),
        blur_sigma_mm=(0.15, 0.45),
        gamma=(0.8, 1.3),
        window_percentile=(1.0, 8.0),
        contrast=(0.85, 1.0),
        compression=(0.35, 0.6),
    ),
    "hard": Preset(
        body_scale=(0.8, 1.25),
        size_jitter=0.035,
        cobb_deg=(10.0, 75.0),
        obliquity_deg=(-8.0, 8.0),
        tilt_jitter_deg=1.5,
        sacral_slope_deg=(12.0, 58.0),
        l1_slope_deg=(-8.0, 30.0),
        alignment_jitter=0.025,
        slip_probability=0.5,
        slip_fraction=(0.06, 0.55),
        fracture_probability=0.5,
        fractures=(1, 3),
        height_loss=(0.15, 0.5),
        concavity_mm=(0.5, 3.5),
        missing_probability=0.15,
        anterior_right_probability=0.2,
        margin_mm=(12.0, 70.0),
        side_margin_mm=8.0,
        shift_mm=(-30.0, 30.0),
        cut_probability=0.4,
        cut_levels=(0.3, 2.5),
        collimation_probability=0.5,
        shutter_mm=(2.0, 16.0),
        bone_density=(0.6, 1.0),
        tissue_mm=(200.0, 300.0),
        gas_bubbles=(2, 22),
        metal_probability=0.3,
        marker_probability=0.8,
        photons_per_mm2=(1.5e4, 8.0e4),
        scatter_to_primary=(0.5, 2.0),
        scatter_sigma_mm=(20.0, 60.0),
        blur_sigma_mm=(0.2, 0.9),
        gamma=(0.7, 1.5),
        window_percentile=(0.0, 15.0),
        contrast=(0.6, 1.0),
        compression=(0.4, 0.7),
    ),
}

# A step of so much of the endplate below is labelled a slip: half-way between the largest healthy step and the
# smallest drawn slip of all presets, so a label tells which of the two was drawn.
SLIP_FROM = (
    max(MOST_JITTER_SD * preset.alignment_jitter for preset in PRESETS.values())
    + min(preset.slip_fraction[0] for preset in PRESETS.values())
) / 2
