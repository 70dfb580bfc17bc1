"""`python -m interpose.demo`: exit status 0 if all it claims was observed, 1 if not, 2 for a wrong option."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Sequence

from interpose.demo.generate import GenerationError
from interpose.demo.options import Options, parse
from interpose.demo.progress import ProgressLine


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo, print its report and return the exit status."""
    options = parse(arguments)
    try:
        return show(options)
    except GenerationError as error:
        print(f"interpose.demo: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interpose.demo: interrupted", file=sys.stderr)
        return 130  # as a shell reports it: 128 + SIGINT
    except BrokenPipeError:
        # The reader of our output has gone; without this Python would complain again as it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def show(options: Options) -> int:
    """Run once and print what was seen."""
    # Imported here, as these need the generated code: what it lacks is reported above, not in a traceback.
    from interpose.demo import claims, report
    from interpose.demo.run import run

    progress = ProgressLine(sys.stderr)
    try:
        story = asyncio.run(run(options.seed, options.calls, progress.leg))
    finally:
        progress.clear()
    verdict = claims.judge(story)
    if options.json:
        print(json.dumps(report.as_json(story, verdict), indent=2), flush=True)
    else:
        print("\n".join(report.as_text(story, verdict)), flush=True)
    if options.serve:
        serve(options)
    return 0 if all(claim.holds for claim in verdict) else 1


def serve(options: Options) -> None:
    """Show the services at work, until somebody ends it."""
    from interpose.demo.live import live

    # One JSON document is all that stdout has if that was asked for.
    out = sys.stderr if options.json else sys.stdout
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(live(options.seed, lambda url: print(f"Live, until Ctrl-C: {url}", file=out, flush=True)))


if __name__ == "__main__":
    sys.exit(main())
