"""Commands of the form `COMMAND RUN [options]`: which run, or all of them listed."""

import difflib
import sys
from collections.abc import Sequence

from reid.recipes import RUNS, method_of


def named_run(arguments: Sequence[str], *, command: str, about: str | None) -> str:
    """Return the run that a command line begins with; ValueError for one that is not known.

    Without one, and for --help, prints `about` and the known runs, and exits with code 2 or 0.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        out = sys.stdout if arguments else sys.stderr
        print(about, file=out)
        for name, config in RUNS.items():
            what = f"{method_of(config)}, {config.source} to {config.target}, {config.backbone}"
            print(f"  {name:<36} {what}", file=out)
        print(f"\npython -m {command} RUN --help lists the options of a run.", file=out)
        sys.exit(0 if arguments else 2)
    name = arguments[0]
    if name not in RUNS:
        near = difflib.get_close_matches(name, RUNS, n=1)
        raise ValueError(
            f"there is no run '{name}'; "
            + (f"did you mean '{near[0]}'?" if near else f"known are {', '.join(RUNS)}")
        )
    return name
