"""From a checkpoint to what a device executes: ONNX, precisions, parity, bundles. Needs the extra [export]."""
