"""Addresses without their passwords, for messages and logs."""

import re

_PASSWORD = re.compile(r"(?<=://)([^/?#@:]*):[^/?#]*@")
_OPTION = re.compile(r"([?&][^=&#]*(?:pass|pwd|token|key|secret|auth)[^=&#]*=)[^&#]+", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """`rtsp://admin@camera/1?token=***` for `rtsp://admin:hunter2@camera/1?token=abc`."""
    return _OPTION.sub(r"\1***", _PASSWORD.sub(r"\1@", text))
