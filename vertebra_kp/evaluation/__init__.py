"""A network measured on labelled images: metrics, summaries, calibration, comparisons."""
