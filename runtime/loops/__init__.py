"""The loops that move frames through a network: files, and live cameras under a deadline."""
