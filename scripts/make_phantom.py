"""``vertebra-kp phantom``, for a checkout."""

import sys

from vertebra_kp.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["phantom", *sys.argv[1:]]))
