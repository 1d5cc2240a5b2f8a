"""INT8: observe activations, choose ranges, place Q/DQ, judge in dB. Needs the extra [export]."""
