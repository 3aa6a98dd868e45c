"""An event loop for asyncio where there are neither sockets nor pipes: only timers and tasks.

asyncio.run() works as ever; what needs sockets, processes or threads raises.
"""
import asyncio
import asyncio.base_events
import asyncio.events
import time


class _NoSelector:
    """Nothing but time can wake the loop."""

    @staticmethod
    def select(timeout):
        if timeout is None:
            raise RuntimeError("every task waits for something that cannot happen")
        if timeout > 0:
            time.sleep(timeout)
        return ()


class Loop(asyncio.base_events.BaseEventLoop):
    def __init__(self):
        super().__init__()
        self._selector = _NoSelector

    def _process_events(self, events):
        pass

    def _write_to_self(self):
        pass


def install():
    asyncio.new_event_loop = asyncio.events.new_event_loop = Loop
    asyncio.SelectorEventLoop = asyncio.EventLoop = Loop
