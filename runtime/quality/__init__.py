"""Parity, verification, and evaluation on pairs and data sets."""
