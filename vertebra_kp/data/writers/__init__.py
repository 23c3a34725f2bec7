"""Corners of films written in formats that other tools open, each format in its own file."""
