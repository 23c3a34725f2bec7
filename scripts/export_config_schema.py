"""Print the JSON schema of a config file, for editors that complete and check YAML.

VS Code with the YAML extension: save it as ``configs/schema.json`` and start a config with the line
``# yaml-language-server: $schema=schema.json``.
"""

import argparse
import json
from pathlib import Path

from vertebra_kp.config.io import config_json_schema


def main() -> None:
    parser = argparse.ArgumentParser(description="JSON schema of a config file, for editors")
    parser.add_argument("--out", type=Path, help="file to write; without it the schema is printed")
    arguments = parser.parse_args()
    text = json.dumps(config_json_schema(), indent=2) + "\n"
    if arguments.out is None:
        print(text, end="")
    else:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
