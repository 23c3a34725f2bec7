"""``python -m vertebra_kp COMMAND`` is ``vertebra-kp COMMAND``."""

import sys

from vertebra_kp.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
