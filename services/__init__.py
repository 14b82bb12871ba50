"""The work of the service: runs, prompts, context, agents and providers. Knows neither FastAPI nor sockets."""
