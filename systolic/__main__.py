"""``python -m systolic`` is the shell's ``systolic``."""

import sys

from systolic.cli import main

sys.exit(main())
