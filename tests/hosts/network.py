"""Hosts on one machine: namespaces of their own, joined by a bridge that nothing outside reaches.

No namespace has a name and no link is outside of them, so nothing can be left behind and any number
of networks may be side by side: all ends with the processes, and these with this one.

    python -m tests.hosts.network        prints why no hosts can be made here, or an empty line
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

HOST = str(Path(__file__).with_name("host.py"))
SUBNET = "10.77.0"
PATIENCE = float(os.environ.get("REID_HOSTS_PATIENCE", "1"))
"""how many times longer all is waited for than two free cores need"""
SESSIONS = Path("/tmp/ray")  # where Ray has its sessions, if not told otherwise


class Namespaces:
    """Namespaces that last as long as their first process, and this one."""

    def __init__(self, options: list[str], command: list[str], *, within: list[str]) -> None:
        """Start the command, which says "ready", in namespaces made by `unshare` options."""
        self.process = subprocess.Popen(
            [*within, "unshare", *options, "--fork", "--kill-child", "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,  # `unshare` complains when what it holds is killed
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests, which end what they started
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            said = self.process.communicate()[1]
            raise RuntimeError(f"{' '.join(command)} in new namespaces: {said.strip()}")
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        self.pid = int(children.split()[0])

    def inside(self, *options: str) -> list[str]:
        """Return what runs the command that follows it in namespaces of these, named by options."""
        return ["nsenter", f"--target={self.pid}", *options, "--"]

    def end(self) -> None:
        """Kill all processes in there."""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self.process.wait()


class Host:
    """A machine with a name, an address and processes of its own; files outside are common."""

    def __init__(self, switch: "Switch", name: str, number: int) -> None:
        """Boot."""
        self.name, self.address = name, f"{SUBNET}.{number}"
        self.folder = switch.folder / name
        self.port = f"port{number}"
        self._switch = switch
        (self.folder / "home").mkdir(parents=True, exist_ok=True)
        (self.folder / "ray").mkdir(exist_ok=True)
        (self.folder / "tmp").mkdir(exist_ok=True)
        self.boot()

    def boot(self) -> None:
        """Start the machine, with nothing running; what it had on disk is still there."""
        places = [str(self.folder / "ray"), str(SESSIONS)]
        places += [str(self._switch.folder / "hosts"), "/etc/hosts"]
        options = ["--net", "--uts", "--mount", "--ipc", "--pid"]
        command = [sys.executable, HOST, self.name, *places]
        within = self._switch.namespaces.inside("--mount")
        self._namespaces = Namespaces(options, command, within=within)
        self._switch.plug(self.port, self._namespaces.pid)
        for line in (
            f"ip address add {self.address}/24 dev eth0",
            "ip link set eth0 up",
            f"ip route add default via {SUBNET}.254",  # leads nowhere; tells which address is ours
        ):
            self.run(*line.split())

    def run(
        self, *command: str, environment: Mapping[str, str] = os.environ, timeout_s: float = 120
    ) -> str:
        """Run a command to its end and return what it prints; RuntimeError when it fails."""
        done = subprocess.run(
            self._command(command), env=environment, capture_output=True, text=True,
            timeout=timeout_s * PATIENCE, check=False,
        )  # fmt: skip
        if done.returncode:
            said = f"{done.stdout[-4000:]}{done.stderr[-4000:]}"
            raise RuntimeError(
                f"{self.name}: {' '.join(command)} ended with {done.returncode}:\n{said}"
            )
        return done.stdout

    def start(
        self, *command: str, environment: Mapping[str, str], log: IO[str]
    ) -> subprocess.Popen[str]:
        """Start a command that goes on by itself, first of a process group of its own."""
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": log, "stderr": log}
        return subprocess.Popen(
            self._command(command), env=environment, text=True, start_new_session=True, **pipes
        )

    def kill(self) -> None:
        """Cut the power: no process has time for a word."""
        self.plugged(False)
        self.end()

    def end(self) -> None:
        """Kill every process there."""
        self._namespaces.end()

    def plugged(self, is_in: bool) -> None:
        """Pull the network cable, or put it back."""
        self._switch.run("ip", "link", "set", self.port, "up" if is_in else "down")

    def slowed(self, *, megabits: float | None, delay_ms: float = 0.0) -> str:
        """Give the link a speed and a delay, each way; None takes both away. Returns what was done.

        Without netem in the kernel there is a speed but no delay.
        """
        if megabits is None:
            self._switch.run("tc", "qdisc", "del", "dev", self.port, "root")
            self.run("tc", "qdisc", "del", "dev", "eth0", "root")
            return "as it was"
        kinds = [
            f"netem rate {megabits}mbit delay {delay_ms}ms limit 10000",
            f"tbf rate {megabits}mbit burst 64kb latency 400ms",
        ]
        if not has_netem():
            kinds = kinds[1:]
        for run, device in ((self._switch.run, self.port), (self.run, "eth0")):
            run("tc", "qdisc", "replace", "dev", device, "root", *kinds[0].split())
        return kinds[0]

    def _command(self, command: tuple[str, ...]) -> list[str]:
        return [*self._namespaces.inside("--net", "--uts", "--mount", "--ipc", "--pid"), *command]


class Switch:
    """A bridge that hosts are plugged into, and a small disk that all of them share."""

    def __init__(self, folder: Path, *, disk_mb: int) -> None:
        """Make it; `folder` is for what hosts keep."""
        SESSIONS.mkdir(exist_ok=True)
        self.folder, self.disk = folder, folder / "disk"
        self.disk.mkdir()
        names = [f"{SUBNET}.{number} {name}" for number, name in enumerate(NAMES, start=1)]
        (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names, ""]))
        script = f"mount -t tmpfs -o size={disk_mb}m tmpfs {self.disk} && echo ready && exec cat"
        self.namespaces = Namespaces(["--net", "--mount"], ["sh", "-c", script], within=[])
        self.run("ip", "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
        self.run("ip", "address", "add", f"{SUBNET}.254/24", "dev", "bridge")
        self.run("ip", "link", "set", "bridge", "up")

    def run(self, *command: str) -> None:
        """Run a command where the bridge and the disk are."""
        subprocess.run([*self.namespaces.inside("--net", "--mount"), *command], check=True)

    def plug(self, port: str, pid: int) -> None:
        """Connect the network namespace of a process, by its link eth0."""
        subprocess.run(
            [*self.namespaces.inside("--net"), "ip", "link", "delete", port],
            stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        peer = ["peer", "name", "eth0", "netns", str(pid)]
        self.run("ip", "link", "add", port, "type", "veth", *peer)
        self.run("ip", "link", "set", port, "master", "bridge", "up")


NAMES = ("head", "worker-1", "worker-2")


class Network:
    """Three hosts: a head and two workers."""

    def __init__(self, folder: Path, *, disk_mb: int) -> None:
        """Boot all three."""
        self.switch = Switch(folder, disk_mb=disk_mb)
        self.hosts: dict[str, Host] = {}
        try:
            for number, name in enumerate(NAMES, start=1):
                self.hosts[name] = Host(self.switch, name, number)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Kill everything on all hosts."""
        for host in self.hosts.values():
            host.end()
        self.switch.namespaces.end()


def why_not() -> str:
    """Return why no network can be made here, "" where it can."""
    if os.geteuid():
        return "needs root"
    try:
        probe = Namespaces(["--net", "--mount"], ["sh", "-c", "echo ready && exec cat"], within=[])
    except (OSError, RuntimeError) as error:
        return f"no namespaces here: {error}"
    try:
        for line in (
            "ip link add bridge type bridge",
            "ip link add port type veth peer name eth0",
            "tc qdisc add dev port root tbf rate 10mbit burst 64kb latency 100ms",
        ):
            done = subprocess.run(
                [*probe.inside("--net"), *line.split()], capture_output=True, text=True, check=False
            )
            if done.returncode:
                return f"`{line}` fails: {done.stderr.strip()}"
    except OSError as error:
        return str(error)
    finally:
        probe.end()
    return ""


def has_netem() -> bool:
    """Whether links can be given a delay."""
    probe = Namespaces(["--net"], ["sh", "-c", "echo ready && exec cat"], within=[])
    command = ["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    done = subprocess.run([*probe.inside("--net"), *command], capture_output=True, check=False)
    probe.end()
    return done.returncode == 0


def wait_for(what: str, condition: Any, *, seconds: float) -> None:
    """Wait until a condition holds; TimeoutError says what did not happen."""
    deadline = time.monotonic() + seconds * PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds * PATIENCE:.0f} s")
        time.sleep(0.1)


if __name__ == "__main__":
    print(why_not())
