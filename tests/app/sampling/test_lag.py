"""How long a turn of the event loop takes is measured."""

import asyncio
import time

from app.sampling.lag import Lag

TURN = 0.1


async def turned(lag: Lag, *, busy: bool) -> float:
    """The lag, looked at in a turn with much to do or little."""
    if busy:
        asyncio.get_running_loop().call_soon(time.sleep, TURN)
    lag.look()
    lag.look()  # which measures the same turn
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return lag.seconds


def test_a_busy_turn_is_seen_and_forgotten() -> None:
    """What counts is the turn that was looked at last."""

    async def scenario() -> None:
        lag = Lag()
        assert lag.seconds == 0
        assert await turned(lag, busy=True) >= TURN
        assert await turned(lag, busy=False) < TURN

    asyncio.run(scenario())
