"""How long a model takes, how sure that is, and where the time goes."""
