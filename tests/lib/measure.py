"""What the kernel says about a process."""

import os


def fd_count(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def rss_bytes(process):
    with open(f"/proc/{process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(process):
    """The time that its main thread has run, to the nanosecond."""
    with open(f"/proc/{process.pid}/schedstat") as file:
        return int(file.read().split()[0]) / 1e9
