"""``vertebra-kp cross-validate``, for a checkout."""

import sys

from vertebra_kp.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["cross-validate", *sys.argv[1:]]))
