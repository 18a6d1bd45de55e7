"""What `logd check` reads of the machine: swap, hibernation, logind, the clock."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import pytest

from logd.status.checks import machine
from logd.storage.trail_clock import synchronised


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/power").mkdir(parents=True)
    return tmp_path


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_swap_is_encrypted_when_its_device_or_all_below_it_are(root: Path) -> None:
    names = ("sda2", "dm-0", "dm-1", "dm-2", "zram0", "gone")
    put(root / "proc/swaps", "Filename Type Size Used Priority\n" + "".join(
        f"/dev/{name} partition 1 0 -2\n" for name in names
    ))  # fmt: skip
    block = root / "sys/class/block"
    (block / "sda2").mkdir(parents=True)
    put(block / "dm-0/dm/uuid", "CRYPT-LUKS2-abc\n")
    put(block / "dm-1/dm/uuid", "LVM-abc\n")  # a volume on the encrypted one
    (block / "dm-1/slaves/dm-0").mkdir(parents=True)
    put(block / "dm-2/dm/uuid", "LVM-abc\n")  # one that also lies on a plain one
    for name in ("dm-0", "sda2"):
        (block / "dm-2/slaves" / name).mkdir(parents=True)
    assert {swap.name: (swap.encrypted, swap.memory) for swap in machine.swaps(root)} == {
        "/dev/sda2": (False, False), "/dev/dm-0": (True, False), "/dev/dm-1": (True, False),
        "/dev/dm-2": (False, False), "/dev/zram0": (True, True), "/dev/gone": (None, False),
    }  # fmt: skip


def test_a_swap_file_is_as_encrypted_as_what_it_lies_on(root: Path) -> None:
    put(root / "swap", "")
    put(root / "proc/swaps", "Filename\n/swap file 1 0 -2\n")
    assert [swap.encrypted for swap in machine.swaps(root)] == [None]
    device = (root / "swap").stat().st_dev
    put(root / f"sys/dev/block/{os.major(device)}:{os.minor(device)}/dm/uuid", "CRYPT-x")
    assert [swap.encrypted for swap in machine.swaps(root)] == [True]
    assert list(machine.swaps(root / "nowhere")) == []


def test_hibernation_is_on_when_the_kernel_reports_it(root: Path) -> None:
    assert not machine.hibernation(root)
    put(root / "sys/power/state", "freeze mem disk\n")
    put(root / "sys/power/disk", "[disabled]\n")
    assert not machine.hibernation(root)
    put(root / "sys/power/disk", "[platform] shutdown reboot\n")
    assert machine.hibernation(root)
    put(root / "sys/power/state", "freeze mem\n")
    assert not machine.hibernation(root)


def test_logind_removes_ipc_unless_the_last_setting_is_no(root: Path) -> None:
    assert machine.remove_ipc(root)
    put(root / "usr/lib/systemd/logind.conf", "[Login]\n#RemoveIPC=yes\nRemoveIPC=no\n")
    assert not machine.remove_ipc(root)
    put(root / "etc/systemd/logind.conf.d/50-local.conf", "[Login]\nRemoveIPC = yes\n")
    assert machine.remove_ipc(root)


def answer_adjtimex(patch: pytest.MonkeyPatch, returned: int, status: int = 0) -> None:
    """Has the kernel answer with that status."""

    class Library:
        def adjtimex(self, timex: Any) -> int:
            timex[40:44] = status.to_bytes(4, "little")
            return returned

    patch.setattr(ctypes, "CDLL", lambda _name: Library())


@pytest.mark.parametrize(
    ("status", "returned", "right"), [(0x40, 5, False), (0x2001, 0, True), (0, -1, None)]
)
def test_the_kernel_reports_whether_the_clock_is_synchronised(
    monkeypatch: pytest.MonkeyPatch, status: int, returned: int, right: bool | None
) -> None:
    assert synchronised() in (True, False)
    answer_adjtimex(monkeypatch, returned, status)
    assert synchronised(Path("/nowhere")) is right


def test_timesyncds_file_is_read_where_a_sandbox_hides_the_kernels_state(
    monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    answer_adjtimex(monkeypatch, -1)
    timesync = directory / "timesync"
    assert synchronised(timesync) is None, "another NTP daemon, or none"
    timesync.mkdir()
    assert synchronised(timesync) is False
    (timesync / "synchronized").touch()
    assert synchronised(timesync) is True
