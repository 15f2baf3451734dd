"""Many sessions at once, with asyncio, where a full pool is waited for: `herd serve`, and then

    python many.py [http://127.0.0.1:8080]
"""

import asyncio
import sys

from herd_client import AsyncHerd, PoolFull


async def square(herd: AsyncHerd, number: int) -> int:
    while True:
        async with herd.session() as session:
            try:
                await session.post("/eval", content=f"let n = {number}")
            except PoolFull as full:
                # The session has not begun, so there is nothing to do again.
                await asyncio.sleep(full.retry_after or 1)
                continue
            return int((await session.post("/eval", content="n * n")).text)


async def main() -> None:
    async with AsyncHerd(*sys.argv[1:]) as herd:
        print(await asyncio.gather(*(square(herd, number) for number in range(8))))


asyncio.run(main())
