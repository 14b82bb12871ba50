"""Scripts of modules: small Python programs that run outside of this process and see `ctx` and nothing else."""
