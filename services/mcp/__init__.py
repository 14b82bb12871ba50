"""Tool servers that speak the Model Context Protocol: which there are, kept running, and asked."""
