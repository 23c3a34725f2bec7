"""The config: its fields, its YAML files, and what may be set from the command line."""
