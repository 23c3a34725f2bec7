"""Films in DICOM files: their pixels as displayed, and what else is worth knowing, without the patient."""

from vertebra_kp.data.dicom.header import DicomInfo, read_header, viewer_spacings_mm
from vertebra_kp.data.dicom.pixels import DicomFilm, read_dicom, read_pixels, read_size

__all__ = ["DicomFilm", "DicomInfo", "read_dicom", "read_header", "read_pixels", "read_size", "viewer_spacings_mm"]
