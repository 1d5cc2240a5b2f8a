"""Images, video files, cameras and streams, as sources and sinks of frames."""
