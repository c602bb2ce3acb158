"""Name the folders in which tests find files."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]  # of the repository
GOLDEN = ROOT / "tests" / "golden"
SHARED = Path(os.environ.get("STEPCHAIN_SHARED", ROOT.parent / "shared"))  # optional sample data
