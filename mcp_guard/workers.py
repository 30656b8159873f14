"""How many processes serve the app, as far as a process can tell: by its environment and by its command line.

Servers start workers without telling them that there are others. What they were told is still there to be read: each
worker has the command line of the process that started it.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Final

VARIABLES: Final = ("MCP_WORKERS", "WEB_CONCURRENCY")
"""Variables that say how many workers there are: ours, and the one that uvicorn and gunicorn read."""

SERVERS: Final = frozenset({"granian", "gunicorn", "hypercorn", "uvicorn"})
OPTIONS: Final = ("--workers", "-w")


def declared_workers(environment: Mapping[str, str] | None = None, arguments: Sequence[str] | None = None) -> int:
    """The number of workers that the environment or the command line of a known server asks for, at least 1."""
    variables = os.environ if environment is None else environment
    line = sys.argv if arguments is None else arguments
    said = [variables.get(name, "") for name in VARIABLES]
    if line and SERVERS & set(PurePath(line[0]).with_suffix("").parts[-2:]):
        said += _option(line[1:])
    return max([1, *[int(text) for text in said if text.isascii() and text.isdigit()]])


def _option(arguments: Sequence[str]) -> list[str]:
    """What is said for the option, in each of the forms that the servers take."""
    said: list[str] = []
    for position, argument in enumerate(arguments):
        if argument in OPTIONS:
            said += arguments[position + 1 : position + 2]
        said += [argument.removeprefix(option).removeprefix("=") for option in OPTIONS if argument.startswith(option)]
    return said
