"""What goes on the device: open a model, restore pictures and video, check parity, measure.

Needs numpy, onnxruntime, av, pillow, typer and rich; never torch or onnx. Importing this package imports
none of them, so a program can afford it at start-up:

    from unblur.runtime.model.deblurrer import Deblurrer

    with Deblurrer("lprn-s") as deblur:
        sharp_rgb = deblur(blurred_rgb)  # uint8 (H, W, 3), any size
"""
