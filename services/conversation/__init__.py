"""What the model is given in a run: layer 1, loaded, kept and made smaller."""
