"""The first process of a made host: it sets the host up and lasts as long as its standard input.

    unshare --net --uts --mount --ipc --pid --fork --kill-child python host.py NAME [OWN PATH]...

Each pair puts the folder OWN of the host at PATH, where other hosts see theirs. With this process
everything on the host ends, for it is the first of its process namespace.
"""

import os
import signal
import socket
import subprocess
import sys


def reap(*_: object) -> None:
    """Bury the processes that others left to this one."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def main(name: str, places: list[str]) -> None:
    """Set up, say so, wait."""
    socket.sethostname(name)
    commands = [["ip", "link", "set", "lo", "up"]]
    commands.append(["mount", "-t", "tmpfs", "-o", "size=8g", "tmpfs", "/dev/shm"])
    commands.append(["mount", "-t", "proc", "proc", "/proc"])
    commands += [
        ["mount", "--bind", own, path] for own, path in zip(places[::2], places[1::2], strict=True)
    ]
    for command in commands:
        subprocess.run(command, check=True)
    signal.signal(signal.SIGCHLD, reap)
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
