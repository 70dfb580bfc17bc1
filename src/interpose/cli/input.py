"""Lines of the standard input, as they come."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from typing import TextIO

CHUNK = 65_536  # bytes: what a pipe of Linux holds


def lines_of(source: TextIO) -> Iterator[str]:
    """Each line as soon as it is there, without the stream's own buffer.

    A thread that waits in that holds its lock, and Python cannot end then, once the RPC is over.
    """
    decoder, held = codecs.getincrementaldecoder("utf-8")("replace"), ""
    while chunk := os.read(source.fileno(), CHUNK):
        *whole, held = (held + decoder.decode(chunk)).split("\n")
        yield from (f"{line}\n" for line in whole)
    yield held + decoder.decode(b"", final=True)
