"""A team's mailbox hands work to every worker, and closes when nobody gives any."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from orchestrator.cluster.mailbox import Mailbox

T = TypeVar("T")
LONG = 60.0  # seconds that no test waits


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, within a time that no test needs."""

    async def limited() -> T:
        return await asyncio.wait_for(coroutine, 20)

    return asyncio.run(limited())


def test_every_worker_takes_every_piece_of_work_in_order():
    async def serve() -> list[bytes | None]:
        mailbox = Mailbox()
        waiting = [asyncio.create_task(mailbox.take(rank, 0, LONG)) for rank in range(2)]
        await asyncio.sleep(0)
        assert await mailbox.give(b"first") == 0
        taken = await asyncio.gather(*waiting)
        await mailbox.put(0, b"done")
        assert await mailbox.give(b"second") == 1
        # One worker is behind the other.
        return [*taken, await mailbox.take(2, 0, LONG), await mailbox.take(0, 1, LONG)]

    assert run(serve()) == [b"first", b"first", b"first", b"second"]


def test_a_result_is_awaited_and_forgotten():
    async def serve() -> bytes:
        mailbox = Mailbox()
        await mailbox.give(b"work")
        result = asyncio.create_task(mailbox.result(0))
        await asyncio.sleep(0)
        await mailbox.put(0, b"done")
        return await result

    assert run(serve()) == b"done"


def test_without_work_for_a_while_all_workers_leave_and_nothing_more_is_accepted():
    async def serve() -> list[bytes | int | None]:
        mailbox = Mailbox()
        patient = asyncio.create_task(mailbox.take(1, 0, LONG))
        await asyncio.sleep(0)
        impatient = await mailbox.take(0, 0, 0.01)
        return [impatient, await patient, await mailbox.give(b"late")]

    assert run(serve()) == [None, None, None]


def test_workers_finish_what_was_given_before_the_mailbox_was_closed():
    async def serve() -> list[bytes | None]:
        mailbox = Mailbox()
        await mailbox.give(b"work")
        await mailbox.close()
        return [await mailbox.take(0, 0, LONG), await mailbox.take(0, 1, LONG)]

    assert run(serve()) == [b"work", None]


def test_a_worker_that_is_ahead_of_rank_0_does_not_end_the_team():
    async def serve() -> bytes | None:
        mailbox = Mailbox()
        await mailbox.give(b"first")
        ahead = asyncio.create_task(mailbox.take(1, 1, 0.05))
        await asyncio.sleep(0.2)
        await mailbox.put(0, b"done")
        assert await mailbox.give(b"second") == 1
        return await ahead

    assert run(serve()) == b"second"


def test_a_worker_that_was_started_again_gets_no_work():
    async def serve() -> list[bytes | int | None]:
        mailbox = Mailbox()
        await mailbox.give(b"first")
        first = await mailbox.take(0, 0, LONG)
        await mailbox.put(0, b"done")
        await mailbox.give(b"second")
        second = await mailbox.take(0, 1, LONG)
        # The machine was lost, and another worker begins in its place.
        return [first, second, await mailbox.take(0, 0, LONG), await mailbox.give(b"third")]

    assert run(serve()) == [b"first", b"second", None, None]


def test_the_room_of_the_workers_is_known_once_they_started():
    async def serve() -> list[bytes | None]:
        mailbox = Mailbox()
        before = await mailbox.room()
        await mailbox.set_room(b"group")
        return [before, await mailbox.room()]

    assert run(serve()) == [None, b"group"]


def test_a_team_is_awaited_until_its_workers_have_started_or_leave():
    async def serve() -> list[bytes | None]:
        mailbox = Mailbox()
        awaited = asyncio.create_task(mailbox.started())
        await asyncio.sleep(0)
        assert not awaited.done()
        await mailbox.set_room(b"room")
        found = [await awaited, await mailbox.started(), await mailbox.room()]
        assert await mailbox.close()
        return [*found, await mailbox.started()]

    assert run(serve()) == [b"room", b"room", b"room", None]


def test_who_awaits_a_team_that_is_sent_away_hears_of_it():
    async def serve() -> bytes | None:
        mailbox = Mailbox()
        awaited = asyncio.create_task(mailbox.started())
        await asyncio.sleep(0)
        assert not await mailbox.close()
        return await awaited

    assert run(serve()) is None
