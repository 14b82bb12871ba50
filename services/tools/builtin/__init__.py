"""Tools of our own, which need no server. `tools` fields call them all together by one name, as if they had one."""

BUILT_IN = "builtin"
