"""Find vertebra corners on X-ray films and turn them into measurements."""
