"""What all tests share: no test leaves an exported network in the user's cache."""

import os
import tempfile
from pathlib import Path

# For processes that tests start too; one folder for all tests of a day, since an export takes seconds.
os.environ.setdefault("VERTEBRA_KP_CACHE", str(Path(tempfile.gettempdir()) / "vertebra_kp_test_cache"))
