"""Power, heat and clocks of the machine, read beside a measurement."""
