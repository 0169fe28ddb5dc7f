"""``python -m allin1_core.cli`` is ``allin1-core``."""

import sys

from allin1_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
