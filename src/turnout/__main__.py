"""This module lets `python -m turnout` do what the command `turnout` does."""

from __future__ import annotations

import sys

from turnout.cli.main import main

sys.exit(main())
