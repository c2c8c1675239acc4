"""A real NFS: the kernel's server and client, on loopback. Kernels without them cannot show this, and the skip says so."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from daemon.answering.root import StartError, take_root
from daemon.config import load_settings
from tests.faults.harness import FULL, Nursery, lay_out, mounted, shell
from tests.faults.test_two_daemons import (
    test_killed_at_random_moments_two_daemons_lose_and_double_nothing as kill_two,
)
from tests.faults.test_two_daemons import two_daemons

TOOLS = ("exportfs", "rpc.nfsd", "rpc.mountd", "mount.nfs4")


def why_no_nfs() -> str:
    """Why there can be no NFS here; empty where there can."""
    known = Path("/proc/filesystems").read_text().split()
    if os.geteuid() != 0:
        return "needs root, to serve and mount NFS"
    if missing := [kind for kind in ("nfs4", "nfsd") if kind not in known]:
        return f"this kernel has no NFS: {' and '.join(missing)} not in /proc/filesystems (modprobe may bring them)"
    if missing := [tool for tool in TOOLS if not shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")]:
        return f"needs {', '.join(missing)}: Debian's nfs-kernel-server and nfs-common"
    return ""


pytestmark = [
    pytest.mark.skipif(bool(why_no_nfs()), reason=why_no_nfs() or "-"),
    pytest.mark.timeout(3600 if FULL else 300),
]


@pytest.fixture
def nfs(tmp_path: Path) -> Iterator[Path]:
    """A folder on an ext4 that is served to, and mounted from, this very host."""
    with mounted("ext4", megabytes=256) as served, ExitStack() as stack:
        point = tmp_path / "nfs"
        point.mkdir()
        if not os.path.ismount("/proc/fs/nfsd"):
            shell("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
        shell("exportfs", "-o", "rw,sync,no_root_squash,insecure,fsid=0", f"127.0.0.1:{served}")
        stack.callback(subprocess.run, ["exportfs", "-u", f"127.0.0.1:{served}"], check=False)
        shell("rpc.nfsd", "--no-nfs-version", "3", "4")
        stack.callback(subprocess.run, ["rpc.nfsd", "0"], check=False)
        mountd = subprocess.Popen(["rpc.mountd", "--foreground", "--no-nfs-version", "3"])
        stack.callback(mountd.wait)
        stack.callback(mountd.terminate)
        shell("mount", "-t", "nfs4", "127.0.0.1:/", str(point))
        stack.callback(subprocess.run, ["umount", "-f", "-l", str(point)], check=False)
        yield point


def test_on_nfs_two_daemons_lose_and_double_nothing(nursery: Nursery, nfs: Path) -> None:
    """What holds on a disk of one's own holds there: kills, names that come again, no rename that replaces nothing."""
    kill_two(two_daemons(nursery, nfs))


def test_on_nfs_a_root_is_taken_once(nursery: Nursery, nfs: Path) -> None:
    """The lock is the server's."""
    settings = load_settings(lay_out(nfs / "root", nursery.model) / "config.toml")
    with ExitStack() as first, ExitStack() as second:
        take_root(settings, first)
        with pytest.raises(StartError, match="expected no other daemon on this root"):
            take_root(settings, second)
