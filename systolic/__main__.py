"""Entry point of ``python -m systolic``."""

import sys

from systolic.cli import main

sys.exit(main())
