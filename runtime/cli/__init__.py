"""The command `unblur`: one module per command."""

loading_ms: dict[str, float] = {}
"""Milliseconds that importing a command's module took, with all that it imports: a part of a cold start."""
