"""The command `unblur`: one module per command."""
