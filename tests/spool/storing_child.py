"""A process that stores, changes and ends letters as fast as it can, and says what has become durable.

Run as `python -m tests.spool.storing_child FOLDER FIRST`: prints `stored ID` and `ended ID` after each return.
"""

import asyncio
import itertools
import os
import sys
from pathlib import Path

from forwarder.model.letter import Change
from forwarder.model.message import MemoryContent
from tests.spool.material import DELIVERED, letter, number, opened, part


def body(id: str) -> bytes:
    """What the letter of that id holds."""
    return id.encode() * (1 + int.from_bytes(id.encode()[-2:], "big") % 3000)


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def main(folder: Path, first: int) -> None:
    spool = await opened(folder, hands=None)
    numbers = itertools.count(first)

    async def work() -> None:
        for n in numbers:
            content = MemoryContent(body(number(n)))
            taken = await spool.files.write(number(n), content) if n % 3 == 0 else content
            await spool.store([letter(n, taken, 2)])
            say(f"stored {number(n)}")
            await spool.store([], [Change(part(n, 0), DELIVERED)])
            if n % 2:
                await spool.store([], [Change(part(n, 1), DELIVERED)])
                say(f"ended {number(n)}")

    await asyncio.gather(*(work() for _ in range(6)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
