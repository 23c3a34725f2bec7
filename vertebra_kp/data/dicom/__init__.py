"""Films in DICOM files: their pixels as displayed, and what else is worth knowing, without the patient."""

from vertebra_kp.data.dicom.header import DicomInfo, read_header
from vertebra_kp.data.dicom.pixels import read_pixels, read_size

__all__ = ["DicomInfo", "read_header", "read_pixels", "read_size"]
