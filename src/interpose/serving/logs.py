"""Logging of a server: one place, standard error, unless the program or a file says otherwise."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from interpose.serving.options import CannotServe

# The process, since the lines of several workers are in one place.
FORMAT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"


# By itself logging silences the loggers that it is not given, and with them our start line.
KEPT = {"disable_existing_loggers": False}


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
            logging.config.dictConfig({**KEPT, **config})
        elif config.endswith(".json"):
            logging.config.dictConfig({**KEPT, **json.loads(Path(config).read_text("utf-8"))})
        else:
            logging.config.fileConfig(config, disable_existing_loggers=False, encoding="utf-8")
    except Exception as error:  # of many kinds: logging does not look at what it is given
        why = " ".join(": ".join(str(one) for one in (error, error.__cause__) if one).split())
        raise CannotServe(
            f"cannot configure logging from {config}: {why}; it takes JSON for dictConfig, or the format of fileConfig"
        ) from None
