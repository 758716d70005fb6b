"""Entry of `python -m nnunet_ext`."""

import sys

from .cli import main

sys.exit(main())
