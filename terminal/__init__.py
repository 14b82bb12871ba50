"""The terminal client: a person, or a script, and one session of a running service.

It speaks only the public protocol, as any other client does.
"""
