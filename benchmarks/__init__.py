"""What the hot paths cost on this machine, always beside something to compare with.

`python -m benchmarks` runs all of them, `python -m benchmarks relay --quick` one of them with small numbers. Whatever
is compared runs in turns (A B A B) on one machine, so the ratios can be compared with those of another machine; the
absolute figures cannot. Nothing here asserts a time: that is left to readers, who know their machine.

Linux only: CPU time and memory are read from /proc.
"""
