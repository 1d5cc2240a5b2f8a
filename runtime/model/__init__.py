"""Models: bundles, which variant runs on this device, ONNX Runtime, tiles, golden vectors."""
