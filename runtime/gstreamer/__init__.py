"""The GStreamer element `unblur`: `python/` is what GST_PLUGIN_PATH's loader reads, the rest is ordinary Python."""
