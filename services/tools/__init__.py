"""The tools that a run may use: which there are, who has to agree, and what was done with them."""
