"""A server that starts in one line, and stops without losing a call."""

from interpose.serving.options import CannotServe, Options
from interpose.serving.start import start

__all__ = ["CannotServe", "Options", "start"]
