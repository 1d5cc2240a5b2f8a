"""The commands of `unblur` that go on the device; `unblur.runtime.cli` adds them."""
