"""``vertebra-kp phantom``, for a checkout."""

import sys

from vertebra_kp.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["phantom", *sys.argv[1:]]))
