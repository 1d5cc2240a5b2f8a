"""Memory for frames that is used again, so that a stream allocates nothing of frame size once it runs."""

import weakref
from collections import deque
from math import prod

import numpy as np

from unblur.runtime.frames import Frame


class FramePool:
    """Hands out frames and gets each back by itself once nobody refers to it or to a view of it any more.

    Nobody has to know who is the last to hold a frame: the queue it was dropped from, a slow sink, a web page.
    May be used from several threads.
    """

    def __init__(self, keep: int = 8) -> None:
        """keep: most buffers that wait to be used again; further ones are freed."""
        self._free: deque[bytearray] = deque(maxlen=keep)

    def take(self, shape: tuple[int, ...]) -> Frame:
        """A uint8 array of that shape with undefined contents."""
        memory = self._memory(prod(shape))
        # Views of `owner` keep it alive, whatever is sliced from them; when it goes, its memory is free again. A
        # deque is appended to without a lock, which a finalizer must not wait for: it runs at any moment.
        owner = np.frombuffer(memory, np.uint8)
        weakref.finalize(owner, self._free.append, memory)
        return owner.reshape(shape)

    def _memory(self, size: int) -> bytearray:
        """A free buffer of exactly `size` bytes, or a new one; those of a size no longer asked for are let go."""
        while True:
            try:
                memory = self._free.popleft()
            except IndexError:
                return bytearray(size)
            if len(memory) == size:
                return memory
