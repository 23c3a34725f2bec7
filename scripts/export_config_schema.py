"""``vertebra-kp config-schema``, for a checkout."""

import sys

from vertebra_kp.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["config-schema", *sys.argv[1:]]))
