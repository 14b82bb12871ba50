"""What the release before this one says to the database, written down so that it can be tried on the schema of today.

`statements.json` is made from a checkout of that release, when the next one begins:

    python -m tests.acceptance.previous <its folder> >tests/acceptance/previous/statements.json
"""
