"""What a power cut may leave on the disk: recorded at the system calls of a program that runs, replayed state by state.

`strace` runs a program and reads its calls, `recorder` makes of them operations on files and names, `replayer` builds
folders as a disk could hold them after a cut at any moment, `campaign` gives them to a checker. That the instrument
finds what it is made for is proved on writers with known faults (`writers`, `test_instrument`).
"""
