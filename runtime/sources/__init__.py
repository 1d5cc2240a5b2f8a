"""Where frames come from: cameras, streams, files, or a scene that is made up."""
