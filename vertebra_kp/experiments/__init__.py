"""Studies: variants of one config over seeds, run, recorded and compared."""
