"""Logging of a server: one place, standard error, unless the program or a file says otherwise."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from interpose.serving.options import CannotServe

# The process, since the lines of several workers are in one place.
FORMAT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"


def configure(level: str, config: str | dict[str, Any] | None) -> None:
    """Log from this level on; what the program has configured already stays as it is.

    config: a dictionary for `logging.config.dictConfig`, or the path of a file: JSON with such a dictionary, or what
        `logging.config.fileConfig` reads. CannotServe for one that is neither.
    """
    if config is not None:
        _configured(config)
        return
    logging.basicConfig(format=FORMAT, level=level.upper())
    logging.getLogger("interpose").setLevel(level.upper())


def _configured(config: str | dict[str, Any]) -> None:
    import logging.config  # a server starts sooner without it

    try:
        if isinstance(config, dict):
            logging.config.dictConfig(config)
        elif config.endswith(".json"):
            logging.config.dictConfig(json.loads(Path(config).read_text("utf-8")))
        else:
            logging.config.fileConfig(config, disable_existing_loggers=False, encoding="utf-8")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CannotServe(
            f"cannot configure logging from {config}: {error}; it takes JSON for dictConfig, or the format of fileConfig"
        ) from None
