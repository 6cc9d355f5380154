"""How every command of the project starts and ends: options from dataclasses, one line per failure, exit codes."""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any, Protocol, runtime_checkable

from kg.errors import KGError

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


@runtime_checkable
class Command(Protocol):
    """A keyword-only dataclass whose fields are the options and whose docstring is the help."""

    def run(self) -> None: ...


def run(prog: str, commands: Sequence[type[Command]], argv: Sequence[str] | None = None) -> int:
    """Parse ``argv`` into one of ``commands``, run it, and return the exit code.

    Command names are the class names in kebab case. A failure of ours is one line on standard error; anything
    unforeseen is reported in one line too, with the traceback behind ``KGFUSE_DEBUG=1``. SIGTERM ends a command as
    Ctrl-C does, so that it leaves no working folder; a server that drains handles it on its own meanwhile.
    """
    import tyro

    debug = bool(os.environ.get("KGFUSE_DEBUG"))
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("neo4j").setLevel(logging.ERROR)  # at DEBUG the driver logs query parameters
    union: Any = commands[0] if len(commands) == 1 else reduce(or_, commands)
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        command: Command = tyro.cli(union, prog=prog, args=argv, config=(tyro.conf.OmitSubcommandPrefixes,))
        command.run()
    except KeyboardInterrupt:
        print("Interrupted; what was finished is kept.", file=sys.stderr)  # noqa: T201
        return EXIT_INTERRUPTED
    except KGError as error:
        if debug:
            raise
        print(f"{prog}: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        if debug:
            raise
        hint = "run again with KGFUSE_DEBUG=1 for the traceback"
        print(f"{prog}: unexpected {type(error).__name__}: {error} ({hint})", file=sys.stderr)  # noqa: T201
        return EXIT_FAILED
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0
