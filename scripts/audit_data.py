"""``vertebra-kp audit``, for a checkout."""

import sys

from vertebra_kp.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["audit", *sys.argv[1:]]))
