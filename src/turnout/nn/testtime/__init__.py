"""What may a prompt still change in a trained model? Adaptation for one request, taken back after it."""

from __future__ import annotations
