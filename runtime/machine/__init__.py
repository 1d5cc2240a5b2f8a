"""Facts, health checks and sensors of the machine."""
