"""Several hosts on one machine: network namespaces, each with its own files and processes.

A `Network` is a desk, where the user sits, and hosts, each with its own sshd; the machine's own
network is not touched. All hosts see `shared` at /srv, like a mount.
Needs root, iproute2, util-linux, openssh-server and rsync.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SHARED = "/srv"
NEEDED = ("ip", "unshare", "nsenter", "sshd", "ssh", "ssh-keygen", "rsync")

GATEWAY = "10.77.0.1"
UNSHARE = "unshare -m -u -i -p -f --mount-proc --kill-child"

BEGIN = r"""
set -e
mount --make-rprivate /
for folder in {keep}; do
  for private in /root /tmp; do
    case "$folder" in "$private"/*)
      mkdir -p "{files}$private${{folder#$private}}"
      mount --rbind "$folder" "{files}$private${{folder#$private}}" ;;
    esac
  done
done
mount --bind "{shared}" {mount}
mount --rbind {files}/root /root
mount --rbind {files}/tmp /tmp
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
hostname {name}
ip link set lo up
{serve}
"""


def missing() -> str | None:
    """Return the reason why hosts cannot be made here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts as network namespaces need Linux and root"
    absent = [program for program in NEEDED if shutil.which(program) is None]
    if absent:
        return f"hosts need {', '.join(absent)} (openssh-server, rsync, iproute2, util-linux)"
    wire = "ip link add bridge0 type bridge && ip link add wire0 type veth peer name wire1"
    command = ["unshare", "-n", "-m", "-p", "-f", "sh", "-c", wire]
    probe = subprocess.run(command, capture_output=True)
    return None if probe.returncode == 0 else "this container may not make namespaces"


class Host:
    """A host that can be started, killed with all its processes, and started again."""

    def __init__(self, network: Network, name: str, address: str, shared: Path) -> None:
        self.network, self.name, self.address, self.shared = network, name, address, shared
        self.files = network.folder / name
        self.space = f"{network.prefix}{name}"
        self._unshare: subprocess.Popen[bytes] | None = None
        for folder in ("root/.ssh", "tmp"):
            (self.files / folder).mkdir(parents=True, exist_ok=True)
        (self.files / "tmp").chmod(0o1777)

    @property
    def is_up(self) -> bool:
        """Whether the host was started and not killed since."""
        return self._unshare is not None

    def start(self) -> None:
        """Boot the host with the files it had."""
        serve = "/usr/sbin/sshd -D -e -f /root/.sshd/config" if self.address else "sleep infinity"
        script = BEGIN.format(
            keep=" ".join({sys.base_prefix, sys.prefix, str(REPOSITORY), *self.network.keep}),
            files=self.files,
            shared=self.shared,
            mount=SHARED,
            name=self.name,
            # The shell stays as the first process and reaps the others, like init.
            serve=f"{serve} & trap 'exit 0' TERM; echo up; while :; do wait; sleep 0.2; done",
        )
        log = open(self.files / "boot.log", "ab")  # noqa: SIM115
        self._unshare = subprocess.Popen(
            [*f"ip netns exec {self.space} {UNSHARE} bash -c".split(), script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        log.close()
        assert self._unshare.stdout is not None
        with self._unshare.stdout as out:
            is_up = out.readline() == b"up\n"
        if not is_up:
            raise RuntimeError(f"{self.name}: {(self.files / 'boot.log').read_text()[-2000:]}")
        self._first = _child(self._unshare.pid)

    def kill(self) -> None:
        """Kill all processes and cut the wire at once, like a power failure."""
        if self._unshare is None:
            return
        self.network.unplug(self)
        with suppress(ProcessLookupError):
            os.kill(self._first, signal.SIGKILL)
        self._unshare.wait()
        self._unshare = None

    def command(self, *arguments: str) -> list[str]:
        """Return the command that runs `arguments` on the host, in a login shell."""
        inside = ["nsenter", "-t", str(self._first), "-m", "-u", "-i", "-n", "-p"]
        home = [
            "env",
            "-i",
            "HOME=/root",
            "USER=root",
            "LANG=C.UTF-8",
            f"PATH={os.environ['PATH']}",
        ]
        return [*inside, *home, "bash", "-c", " ".join(arguments)]

    def run(self, *arguments: str, timeout: float = 120, check: bool = True) -> str:
        """Run a shell command on the host and return both output streams."""
        done = subprocess.run(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            raise RuntimeError(
                f"{self.name}: {arguments} ended with {done.returncode}\n{done.stdout}"
            )
        return done.stdout

    def popen(self, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a shell command on the host; its output goes to `log`."""
        with open(log, "ab") as out:
            return subprocess.Popen(
                self.command(*arguments), stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def processes(self, pattern: str) -> list[int]:
        """Return the PIDs, on this machine, of the host's processes that match `pattern`."""
        space = os.readlink(f"/proc/{self._first}/ns/pid")
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if pattern in command and os.readlink(process / "ns/pid") == space:
                    found.append(int(process.name))
        return found


class Network:
    """A desk and hosts on one bridge, which is in the desk's network namespace."""

    def __init__(self, folder: Path, count: int, keep: tuple[str, ...] = ()) -> None:
        self.folder, self.keep = folder, keep
        self.prefix = f"fg{os.getpid()}-"
        self.shared = folder / "shared"
        self.shared.mkdir(parents=True)
        self.desk = Host(self, "desk", "", self.shared)
        self.hosts = [
            Host(self, name, f"{GATEWAY}{number}", self.shared)
            for number, name in enumerate(["head", *(f"worker{i}" for i in range(1, count))])
        ]

    def start(self) -> None:
        """Create namespaces, keys and wires, and start every host."""
        clear_stale()
        key = self.desk.files / "root/.ssh/id_ed25519"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        self._ip("netns", "add", self.desk.space)
        for command in (
            "link add bridge type bridge",
            f"address add {GATEWAY}/24 dev bridge",
            "link set bridge up",
        ):
            self._ip("-n", self.desk.space, *command.split())
        self.desk.start()
        for host in self.hosts:
            self._furnish(host, key)
            self._ip("netns", "add", host.space)
            self.plug(host)
            host.start()
        for host in self.hosts:
            self._await_sshd(host)

    def plug(self, host: Host) -> None:
        """Connect a host's wire to the bridge."""
        wire = f"to-{host.name}"
        self._ip("-n", self.desk.space, *f"link add {wire} type veth peer name eth0".split())
        self._ip("-n", self.desk.space, *f"link set eth0 netns {host.space}".split())
        self._ip("-n", self.desk.space, *f"link set {wire} master bridge up".split())
        self._ip("-n", host.space, *f"address add {host.address}/24 dev eth0".split())
        self._ip("-n", host.space, "link", "set", "eth0", "up")
        # Ray asks the routing table for the node's address; the desk forwards nothing.
        self._ip("-n", host.space, *f"route add default via {GATEWAY}".split())

    def unplug(self, host: Host) -> None:
        """Cut a host's wire."""
        if host.address:
            self._ip("-n", self.desk.space, *f"link delete to-{host.name}".split())

    def restart(self, host: Host) -> None:
        """Start a killed host again."""
        self.plug(host)
        host.start()
        self._await_sshd(host)

    def stop(self) -> None:
        """Kill every host and remove the namespaces; safe to call at any point."""
        for host in [*self.hosts, self.desk]:
            with suppress(Exception):
                host.kill()
            subprocess.run(["ip", "netns", "delete", host.space], capture_output=True)

    def _furnish(self, host: Host, key: Path) -> None:
        """Give a host an sshd with its own key that admits the others, and Python packages."""
        home = host.files / "root"
        (home / ".sshd").mkdir(exist_ok=True)
        host_key = home / ".sshd/key"
        if not host_key.exists():
            generate = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)]
            subprocess.run(generate, check=True)
        (home / ".sshd/config").write_text(
            f"ListenAddress {host.address}\nHostKey /root/.sshd/key\nPidFile none\nUsePAM no\n"
            "PermitRootLogin prohibit-password\nStrictModes no\nSubsystem sftp internal-sftp\n"
        )
        shutil.copy(f"{key}.pub", home / ".ssh/authorized_keys")
        self._provide_python(home)

    def _provide_python(self, home: Path) -> None:
        """Create a ~/venv with the packages of this one, so that nothing is downloaded."""
        venv = home / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
        packages = venv / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
        ours = next(path for path in sys.path if path.endswith("site-packages"))
        (packages / "installed.pth").write_text("\n".join([*self.keep, ours]) + "\n")
        python = venv / "bin/python"
        python.unlink()
        python.symlink_to(os.path.realpath(sys.executable))
        ray = venv / "bin/ray"
        ray.write_text("#!/root/venv/bin/python\nfrom ray.scripts.scripts import main\nmain()\n")
        ray.chmod(0o755)
        config = home / ".config/pip/pip.conf"
        config.parent.mkdir(parents=True)
        # Hosts have no package index: all they need is here, including build tools.
        config.write_text("[global]\nno-index = true\n[install]\nno-build-isolation = false\n")

    def _await_sshd(self, host: Host, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        probe = f"exec 3<>/dev/tcp/{host.address}/22"
        while subprocess.run(self.desk.command(probe), capture_output=True).returncode:
            if time.monotonic() > deadline:
                log = (host.files / "boot.log").read_text()
                raise RuntimeError(f"{host.name}: sshd does not answer\n{log[-2000:]}")
            time.sleep(0.1)

    @staticmethod
    def _ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)


def clear_stale() -> None:
    """Remove the namespaces of test runs that were killed."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    for name in (line.split()[0] for line in listed.splitlines() if line.startswith("fg")):
        owner = name[2:].partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            for pid in subprocess.run(
                ["ip", "netns", "pids", name], capture_output=True, text=True
            ).stdout.split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def _child(pid: int) -> int:
    """Return the first process inside: `unshare` has one child."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0])
