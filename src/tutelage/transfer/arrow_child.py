"""A program of its own: reads Arrow files to their end, so that one which crashes the reader ends no run.

It imports nothing of tutelage, so that it starts fast: `python -I arrow_child.py BYTES FILE ...`. On standard output it
says `sound`, or what is wrong.
"""

from __future__ import annotations

import contextlib
import sys

import pyarrow as pa

_OF_ITS_OWN = 4 * 10**9
"""Bytes of addresses that Python and Arrow take without any data."""


def main(most: int, files: list[str]) -> str:
    """What is to be said of these files, whose rows may take `most` bytes together."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (2 * most + _OF_ITS_OWN, resource.RLIM_INFINITY))
    size = 0
    for file in files:
        try:
            with pa.memory_map(file) as mapped, pa.ipc.open_stream(mapped) as batches:
                for batch in batches:
                    size += batch.nbytes
                    if size > most:
                        return f"large {file}"
                    batch.validate(full=True)
        except MemoryError:
            return f"large {file}"
        except (pa.ArrowException, OSError, ValueError) as error:
            return f"damaged {file}: {' '.join(str(error).split())}"
    return "sound"


if __name__ == "__main__":
    print(main(int(sys.argv[1]), sys.argv[2:]))
