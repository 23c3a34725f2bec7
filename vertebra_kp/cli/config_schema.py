"""The command config-schema: what a config file may say, for editors that complete and check YAML."""

import argparse
import json

from vertebra_kp.config.io import config_json_schema


def run(arguments: argparse.Namespace) -> None:
    text = json.dumps(config_json_schema(), indent=2) + "\n"
    if arguments.output_file is None:
        print(text, end="")
    else:
        arguments.output_file.write_text(text, encoding="utf-8")
