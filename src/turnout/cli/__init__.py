"""Thin doors to the rooms.

Contract: `turnout COMMAND`; every command takes `--json` for machines. Imports: every room, and only when
its command runs.
"""

from __future__ import annotations
