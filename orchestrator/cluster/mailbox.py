"""Hold the work of a team of workers and its results, in an actor that starts quickly.

Everything is pickled, so that this process imports neither torch nor the code of the work.
"""

import asyncio


class Mailbox:
    """Numbers the pieces of work from 0; each worker of the team takes all of them, in order."""

    def __init__(self) -> None:
        self._count = 0
        # A worker may take a piece while the next one is given.
        self._work: dict[int, bytes] = {}
        self._results: dict[int, bytes] = {}
        self._finished = 0  # pieces of work whose result was put
        self._taken: set[tuple[int, int]] = set()  # by which rank which piece
        self._room: bytes | None = None
        self._closed = False
        self._changed = asyncio.Condition()

    async def give(self, work: bytes) -> int | None:
        """Add a piece of work and return its number; None if the team is leaving."""
        async with self._changed:
            if self._closed:
                return None
            number = self._count
            self._count += 1
            self._work[number] = work
            self._work.pop(number - 2, None)
            self._changed.notify_all()
            return number

    async def take(self, rank: int, number: int, patience: float) -> bytes | None:
        """Return a piece of work when it is there.

        None if there is none for `patience` seconds after the piece before it was finished, or if a
        worker of this rank took it before, and was lost with it. The mailbox is then closed, so
        that all workers of the team leave.
        """
        async with self._changed:
            if (rank, number) in self._taken:
                self._close()
                return None
            # A worker may be ahead of rank 0, which still has the result to give.
            await self._changed.wait_for(lambda: self._finished >= number or self._closed)
            try:
                await asyncio.wait_for(
                    self._changed.wait_for(lambda: number in self._work or self._closed), patience
                )
            except TimeoutError:
                self._close()
            if number in self._work:
                self._taken.add((rank, number))
            return self._work.get(number)

    async def put(self, number: int, result: bytes) -> None:
        """Store the result of a piece of work."""
        async with self._changed:
            self._results[number] = result
            self._finished = number + 1
            self._changed.notify_all()

    async def result(self, number: int) -> bytes:
        """Return the result of a piece of work when it is there, and forget it."""
        async with self._changed:
            await self._changed.wait_for(lambda: number in self._results)
            return self._results.pop(number)

    async def set_room(self, room: bytes) -> None:
        """Store what names the resources that the workers hold, which have started."""
        async with self._changed:
            self._room = room
            self._changed.notify_all()

    async def started(self) -> bytes | None:
        """Return, when the workers have started, what `room` does; None if the team is leaving."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._room is not None or self._closed)
            return None if self._closed else self._room

    async def room(self) -> bytes | None:
        """Return what names the resources that the workers hold, None before they started."""
        return self._room

    async def close(self) -> bool:
        """Accept no more work. Return whether the workers have started."""
        async with self._changed:
            self._close()
            return self._room is not None

    def _close(self) -> None:
        self._closed = True
        self._changed.notify_all()
