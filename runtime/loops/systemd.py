"""What systemd is told of a service, by the protocol of sd_notify(3), so that a loop that hangs is restarted."""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress


class ServiceNotifier:
    """Tells systemd that the service is ready and alive; does nothing where systemd does not ask.

    `alive` is called from the loop itself, not from a timer: a loop that hangs in a driver is silent.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """environment: NOTIFY_SOCKET and, for a unit with WatchdogSec, WATCHDOG_USEC."""
        self._address = environment.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        watchdog_us = environment.get("WATCHDOG_USEC", "")
        self._period_s = int(watchdog_us) / 1e6 / 4 if watchdog_us.isdecimal() else None
        self._sent_s = float("-inf")

    def ready(self) -> None:
        """The loop runs."""
        self._send(b"READY=1")

    def alive(self) -> None:
        """Call it at least every second; four times in the watchdog's period it is passed on."""
        now_s = time.monotonic()
        if self._period_s is not None and now_s - self._sent_s >= self._period_s:
            self._sent_s = now_s
            self._send(b"WATCHDOG=1")

    def stopping(self) -> None:
        """The loop ends and its sinks are being finished."""
        self._send(b"STOPPING=1")

    def _send(self, message: bytes) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection, suppress(OSError):
            connection.sendto(message, self._address)
