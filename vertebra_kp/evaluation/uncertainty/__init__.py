"""How far off corners and measures may be: calibrated on films that selected nothing."""
