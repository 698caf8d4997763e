"""What is said of a service that has ended."""

import json
import os
import signal
import subprocess

import pytest

from onrecord_cli.processes import Service


def test_of_a_log_what_matters_is_shown_and_neither_settings_nor_what_went_well(tmp_path):
    service = Service("door", ["json.tool", "--help"], dict(os.environ), tmp_path / "door.log")
    service.wait()
    events = [
        {"event": "service.starting", "level": "info", "timestamp": "t", "listen": "x" * 1000},
        {"event": "health.not_serving", "level": "warning", "timestamp": "t", "reason": "no room"},
        {"event": "service.ended", "level": "info", "timestamp": "t"},
    ]
    service.log.write_text("\n".join(["one of no service's own", *map(json.dumps, events), ""]))
    assert service.why().splitlines() == [
        f"the door ended with exit code 0; its log is {service.log}",
        "  one of no service's own",
        "  health.not_serving reason=no room",
    ]


def test_of_a_service_that_a_signal_has_ended_what_matters_of_its_log_is_shown_too(tmp_path):
    """Such as of one whose end hangs: the kernel ends it by SIGALRM."""
    service = Service("door", ["timeit", "-n", "1", "import time; time.sleep(60)"], dict(os.environ), tmp_path / "log")
    service.process.send_signal(signal.SIGALRM)
    service.wait()
    service.log.write_text(json.dumps({"event": "service.drain_cut_short", "level": "warning"}) + "\n")
    assert service.why().splitlines() == [
        f"the door was ended by SIGALRM (Alarm clock); its log is {service.log}",
        "  service.drain_cut_short",
    ]


def test_of_a_service_whose_log_a_full_disk_keeps_empty_the_disk_is_named(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "ballast").write_bytes(bytes(1 << 20))
        service = Service("ledger", ["json.tool", "nowhere"], dict(os.environ), tmp_path / "ledger.log")
        service.wait()
        assert service.why().startswith("the ledger ended with exit code ")
        assert service.why().endswith(f": the disk of {tmp_path} is full")
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)
