"""Training: networks, blur synthesis, losses and the loop. Needs the extra [train]."""
