"""Anatomy, geometry, errors, provenance and files: what every other room builds on."""
