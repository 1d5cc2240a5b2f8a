"""How long a network would take on a device that is not at hand, from its published peaks."""
