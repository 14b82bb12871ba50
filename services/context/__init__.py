"""Layer 1: what the model will be given, counted and fitted. Pure, and apart from the history."""
