"""A Kubernetes cluster: the one that KUBECONFIG names, or else a control plane and one node, brought up for the run.

What is brought up is the real thing, of the version that `cluster/go.mod` names: its programs, CoreDNS, metrics-server
and kube-router's firewall are built from Go modules, etcd, containerd and the CNI plugins are Debian's. All of it lives
in namespaces of its own, of processes, mounts and the network, and ends with their first process.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.docker import Docker
from support.packages import find, unpack
from support.service import wait_for
from support.template import ROOT

HOME = ROOT / "build" / "cluster"
RECIPE = Path(__file__).with_name("cluster")
HOST, NODE = "198.18.0.1", "198.18.0.2"  # of the range that is for benchmarks, which nobody's network has
PORT = "6443"
SERVICES = "10.96.0.0/16"
KUBERNETES = [f"kube-{name}" for name in ("apiserver", "controller-manager", "scheduler", "proxy")] + [
    "kubelet",
    "kubectl",
]
# The kinds that operators add, from the sources of those operators: a module of Go each, and where they stand in it.
CUSTOM = {
    "sigs.k8s.io/gateway-api@v1.6.3": "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": (
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml"
    ),
    "github.com/external-secrets/external-secrets@v1.3.2": (
        "config/crds/bases/external-secrets.io_externalsecrets.yaml"
    ),
}
DEBIAN = ("etcd-server", "containerd", "containernetworking-plugins")
OWN = ["dns", "metrics-server", "pause", "policy"]
CGROUPS = Path("/sys/fs/cgroup")
CGROUP = "test-cluster"  # kubelet.yaml names it too
# Who a program is to the API server: its user, its group, and a token.
USERS = {
    "admin": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    "system:kube-proxy": "",
    "system:node:node": "system:nodes",
}
MEND = (
    "no cluster was named, and one can be brought up here only by root on Debian with Go (https://go.dev/dl/) and "
    "cgroup v1 or v2. Name one, and a registry that it reaches: "
    "KUBECONFIG=~/.kube/config REGISTRY=registry.example.com/trial make test-kubernetes"
)


@dataclass
class Cluster:
    """A cluster that answers.

    Attributes:
        environ: in which `kubectl` is found, and finds it.
    """

    environ: Mapping[str, str]

    def ask(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """A `kubectl` command, however it ends."""
        command = ["kubectl", *map(str, arguments)]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, check=False, **options)

    def kubectl(self, *arguments: str | Path, **options: Any) -> str:
        """What it prints; one that fails fails the test with all it said."""
        done = self.ask(*arguments, **options)
        assert done.returncode == 0, f"kubectl {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}"
        return str(done.stdout).strip()

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def load(self, docker: Docker, image: str, name: str) -> str:
        """Give the nodes an image of the engine; by its digest, the name that they know it by.

        Args:
            name: what manifests call it, without a tag.
        """
        raise NotImplementedError


@dataclass
class Foreign(Cluster):
    """A cluster that was there before us: what it runs comes from a registry, into which we may put images."""

    def load(self, docker: Docker, image: str, name: str) -> str:
        pushed = f"{os.environ['REGISTRY']}/{name.partition('@')[0].rpartition('/')[2]}"
        docker.run("tag", image, pushed)
        docker.run("push", "--quiet", pushed)
        known: list[str] = docker.inspect(pushed)["RepoDigests"]
        return next(one for one in known if one.startswith(f"{pushed}@"))


@dataclass
class Node(Cluster):
    """The cluster that is brought up here."""

    state: Path
    process: subprocess.Popen[bytes]
    programs: dict[str, subprocess.Popen[bytes]]

    def command(self, *command: str | Path) -> list[str]:
        """A command as one gives it on the node."""
        inside = ["nsenter", f"--target={first(self.process)}", "--mount", "--net", "--uts", "--pid", "--ipc"]
        return [*inside, *map(str, command)]

    def run(self, *command: str | Path, **options: Any) -> str:
        """What a command prints on the node."""
        done = subprocess.run(
            self.command(*command), env=self.environ, capture_output=True, text=True, check=False, **options
        )
        assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
        return str(done.stdout).strip()

    def start(self, *command: str | Path) -> None:
        """Start a program that runs as long as the node; one that ends fails whoever waits for it."""
        name = Path(command[0]).name
        with (HOME / "log" / name).open("wb") as log:
            self.programs[name] = subprocess.Popen(
                self.command(*command), env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait_until(self, what: str, *command: str | Path, seconds: float = 120) -> None:
        """Until a command on the node ends well."""

        def well() -> bool:
            for name, program in self.programs.items():
                assert program.poll() is None, f"{name} ended:\n{(HOME / 'log' / name).read_text()[-3000:]}"
            return subprocess.run(self.command(*command), env=self.environ, capture_output=True).returncode == 0

        wait_for(well, what, seconds)

    def load(self, docker: Docker, image: str, name: str) -> str:
        with subprocess.Popen(["docker", "save", image], env=docker.environ, stdout=subprocess.PIPE) as saving:
            said = self.run("ctr", "--namespace=k8s.io", "images", "import", "-", stdin=saving.stdout)
        found = re.search(r"unpacking (\S+) \((sha256:\w+)\)", said)
        assert saving.returncode == 0
        assert found is not None, said
        known = name if "@" in name else f"{name}@{found[2]}"
        self.run("ctr", "--namespace=k8s.io", "images", "tag", "--force", found[1], known)
        return known


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster for one run of tests; a second run waits until the first has ended."""
    if os.environ.get("KUBECONFIG"):
        yield Foreign({**os.environ})
        return
    if os.geteuid() != 0 or not shutil.which("apt-get") or not shutil.which("go"):
        pytest.fail(MEND, pytrace=False)
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with bring_up(build(), unpack(*DEBIAN, into=HOME)) as node:
            yield node


def build() -> Path:
    """The folder of the programs that Go builds: once for each state of their sources, 20 minutes of CPU."""
    sources = sorted(path for path in RECIPE.rglob("*") if path.suffix in (".go", ".mod", ".sum"))
    version = subprocess.run(["go", "version"], capture_output=True, check=True).stdout
    told = hashlib.sha256(version + b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    folder = HOME / f"bin-{told}"
    if not folder.exists():
        for old in HOME.glob("bin-*"):
            shutil.rmtree(old)
        release = re.search(r"k8s.io/kubernetes (v(\d+)\.(\d+)\S+)", (RECIPE / "go.mod").read_text())
        assert release is not None
        parts = zip(("gitVersion", "gitMajor", "gitMinor"), release.groups(), strict=True)
        stamp = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in parts)
        packages = [f"k8s.io/kubernetes/cmd/{name}" for name in KUBERNETES] + [f"./{name}" for name in OWN]
        command = ["nice", "go", "build", "-trimpath", "-ldflags", f"-s -w {stamp}"]
        with tempfile.TemporaryDirectory(dir=HOME, prefix="build-") as half:
            subprocess.run([*command, "-o", half, *packages], cwd=RECIPE, check=True)
            Path(half).rename(folder)
            Path(half).mkdir()  # for its context to remove
    return folder


@contextlib.contextmanager
def bring_up(programs: Path, debian: Path) -> Iterator[Node]:
    """A control plane and a node, of these programs; nothing of them is left."""
    paths = [programs, debian / "root/usr/bin", find("runc", "runc").parent, find("iptables", "iptables").parent]
    paths += [find("nsenter", "util-linux").parent, find("ipset", "ipset").parent, find("openssl", "openssl").parent]
    for old in [HOME / "log", *HOME.glob("state-*")]:  # a killed run leaves its own
        shutil.rmtree(old, ignore_errors=True)
    (HOME / "log").mkdir()
    with contextlib.ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="state-", dir=HOME)))
        (state / "config").mkdir()
        environ = {
            **os.environ,
            "PATH": os.pathsep.join([*map(str, paths), os.environ.get("PATH", os.defpath)]),
            "KUBECONFIG": str(state / "config" / "admin.json"),
        }
        stack.enter_context(cgroups())
        started: dict[str, subprocess.Popen[bytes]] = {}
        stack.callback(lambda: [program.wait(60) for program in started.values()])
        node = Node(environ, state, stack.enter_context(namespaces(state, environ)), started)
        configure(node, debian)
        start_control_plane(node)
        start_node(node)
        add_ons(node, programs)
        yield node


@contextlib.contextmanager
def cgroups() -> Iterator[None]:
    """The group of the node's processes, in each hierarchy of this machine."""
    top = (
        [CGROUPS]
        if (CGROUPS / "cgroup.controllers").exists()
        else [path for path in CGROUPS.iterdir() if path.is_dir()]
    )
    groups = [path / CGROUP for path in top]
    remove(groups)  # those of a killed run
    for group in groups:
        group.mkdir(exist_ok=True)
    try:
        yield
    finally:
        remove(groups)


def remove(groups: list[Path]) -> None:
    """Remove groups without processes, and those within."""
    for top in groups:
        for group, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):  # its last process is still ending; the next run tries again
                Path(group).rmdir()


@contextlib.contextmanager
def namespaces(state: Path, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Namespaces in which `cluster/node.sh` is the first process; all others end with it."""
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork"]
    command += ["--kill-child", "--mount-proc", "--propagation", "private", "sh", str(RECIPE / "node.sh"), str(state)]
    with (HOME / "log" / "node.sh").open("wb") as log:
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for((state / "ready").exists, f"the namespaces are set up: {HOME}/log/node.sh")
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(first(process), signal.SIGKILL)  # and `unshare` ends when all of them have
        process.wait(60)


def first(process: subprocess.Popen[bytes]) -> int:
    """The first process of the namespaces: the one child of `unshare`."""
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


def configure(node: Node, debian: Path) -> None:
    """The node's address, and the files that its programs read."""
    link = [
        "ip",
        "link",
        "add",
        "test-cluster",
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        str(first(node.process)),
    ]
    for command in (
        link,
        ["ip", "address", "add", f"{HOST}/30", "dev", "test-cluster"],
        ["ip", "link", "set", "test-cluster", "up"],
    ):
        subprocess.run(command, check=True)
    node.run("ip", "address", "add", f"{NODE}/30", "dev", "eth0")
    node.run("ip", "link", "set", "eth0", "up")
    node.run("ip", "route", "add", "default", "via", HOST)
    config = node.state / "config"
    tokens = []
    for user, group in USERS.items():
        token = secrets.token_hex(16)
        tokens.append(f'{token},{user},{user},"{group}"')
        (config / f"{user.rpartition(':')[2]}.json").write_text(kubeconfig(token, config / "apiserver.crt"))
    (config / "tokens.csv").write_text("\n".join(tokens) + "\n")
    for name in ("kubelet.yaml", "kube-proxy.yaml", "containerd.toml"):
        shutil.copy(RECIPE / name, config)
    key = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=front-proxy"]
    node.run(*key, "-keyout", config / "front.key", "-out", config / "front.crt")
    node.run("openssl", "genrsa", "-out", config / "accounts.key", "2048")
    node.run("cp", RECIPE / "pods.conflist", "/run/cni/net.d/")
    node.run("sh", "-c", f"ln -s {shlex.quote(str(debian))}/root/usr/lib/cni/* /run/cni/bin/")


def kubeconfig(token: str, authority: Path) -> str:
    """How a program finds the API server, and who it is."""
    server = {"server": f"https://{NODE}:{PORT}", "certificate-authority": str(authority)}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        },
        indent=1,
    )


def start_control_plane(node: Node) -> None:
    """etcd, the API server, the controllers and the scheduler; etcd's disk is memory."""
    config = node.state / "config"
    node.start("etcd", "--data-dir=/var/lib/etcd", "--log-level=warn")
    node.start(
        "kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={NODE}",
        f"--secure-port={PORT}",
        f"--cert-dir={config}",
        f"--token-auth-file={config}/tokens.csv",
        "--authorization-mode=Node,RBAC",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-cluster-ip-range={SERVICES}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={config}/accounts.key",
        f"--service-account-signing-key-file={config}/accounts.key",
        f"--requestheader-client-ca-file={config}/front.crt",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={config}/front.crt",
        f"--proxy-client-key-file={config}/front.key",
    )
    node.wait_until("the API server is ready", "kubectl", "get", "--raw=/readyz")
    node.start(
        "kube-controller-manager",
        f"--kubeconfig={config}/kube-controller-manager.json",
        "--leader-elect=false",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={config}/accounts.key",
        f"--root-ca-file={config}/apiserver.crt",
        "--horizontal-pod-autoscaler-sync-period=5s",  # of the usual 15, for a test waits for it
    )
    node.start("kube-scheduler", f"--kubeconfig={config}/kube-scheduler.json", "--leader-elect=false")


def start_node(node: Node) -> None:
    """What runs pods, and leads to them."""
    config = node.state / "config"
    node.start("containerd", f"--config={config}/containerd.toml")
    node.wait_until("containerd answers", "ctr", "version")
    put_program(node, "pause")
    node.start(
        "kubelet",
        f"--config={config}/kubelet.yaml",
        f"--kubeconfig={config}/node.json",
        "--hostname-override=node",
        f"--node-ip={NODE}",
    )
    node.start("kube-proxy", f"--config={config}/kube-proxy.yaml")
    node.wait_until("the node is ready", "kubectl", "wait", "--for=condition=Ready", "node/node", "--timeout=60s")


def add_ons(node: Node, programs: Path) -> None:
    """Names, metrics, and a firewall that does as NetworkPolicies say."""
    config = node.state / "config"
    node.start("policy", f"--kubeconfig={config}/admin.json", "--node=node", f"--service-cidr={SERVICES}")
    for name in ("dns", "metrics-server"):
        put_program(node, name)
    node.kubectl("apply", "--server-side", "--filename", RECIPE / "add-ons.yaml")
    for module, path in CUSTOM.items():
        told = subprocess.run(["go", "mod", "download", "-json", module], cwd=HOME, capture_output=True, check=True)
        node.kubectl("apply", "--server-side", "--filename", Path(json.loads(told.stdout)["Dir"]) / path)
    wait = ["wait", "--timeout=120s"]
    node.kubectl(*wait, "--namespace=kube-system", "--for=condition=Available", "deployment", "--all")
    node.kubectl(*wait, "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io")


def put_program(node: Node, name: str) -> None:
    """Give the node an image, `cluster/name:1`, that has a program and nothing but the libraries that it loads."""
    program = Path(shutil.which(name, path=node.environ["PATH"]) or name)
    libraries = re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", program], capture_output=True, text=True).stdout)
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(program, f"/{name}")
        for library in libraries:
            tar.add(Path(library).resolve(), library)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    image = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [f"/{name}"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [f"cluster/{name}:1"], "Layers": ["layer.tar"]}]
    parts = {"layer.tar": layer.getvalue()}
    parts |= {file: json.dumps(text).encode() for file, text in (("config.json", image), ("manifest.json", manifest))}
    archive = node.state / f"{name}.tar"
    with tarfile.open(archive, "w") as tar:
        for file, content in parts.items():
            entry = tarfile.TarInfo(file)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    node.run("ctr", "--namespace=k8s.io", "images", "import", archive)
    archive.unlink()
