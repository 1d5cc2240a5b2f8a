"""The loop that restores the newest frame of a camera within its deadline, and never lags."""
