"""What `torpor doctor` makes of a host, on recorded files of the kernel's."""

from pathlib import Path

import pytest

from torpor_worker.doctor import Verdict, check_cpu, deepest_idle_microseconds, namespace_cure
from torpor_worker.gvisor.namespace import has_system_privileges

LAUNCHER = Path("/data/sandboxes/launcher/unshare")


def status(user: int, capabilities: str) -> str:
    return f"Name:\tpython3\nUid:\t{user}\t{user}\t{user}\t{user}\nCapEff:\t{capabilities}\nSeccomp:\t0\n"


@pytest.mark.parametrize(
    ("text", "privileged"),
    [
        (status(0, "000001ffffffffff"), True),
        (status(0, "00000000a80425fb"), False),  # root in a container
        (status(1000, "0000000000000000"), False),
    ],
)
def test_only_root_with_sys_admin_needs_no_namespace(text, privileged):
    assert has_system_privileges(text) is privileged


@pytest.mark.parametrize(
    ("files", "cure"),
    [
        ({"sys/user/max_user_namespaces": "0"}, "user.max_user_namespaces"),
        ({"sys/kernel/unprivileged_userns_clone": "0"}, "kernel.unprivileged_userns_clone"),
        ({"sys/kernel/apparmor_restrict_unprivileged_userns": "1"}, "packaging/apparmor/torpor-launcher"),
        ({"self/status": "Seccomp:\t2\n"}, "--security-opt seccomp=unconfined"),
        ({}, "root"),
    ],
)
def test_each_restriction_of_namespaces_has_its_own_cure(tmp_path, files, cure):
    for name, text in {"self/status": status(1000, "0"), **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert cure in namespace_cure(LAUNCHER, tmp_path)


def test_deep_idle_states_count_only_while_they_are_enabled(tmp_path):
    for number, (latency, disabled) in enumerate([(2, 0), (133, 0), (600, 1)]):
        state = tmp_path / f"state{number}"
        state.mkdir()
        (state / "latency").write_text(f"{latency}\n")
        (state / "disable").write_text(f"{disabled}\n")
    assert deepest_idle_microseconds(tmp_path) == 133


def test_an_old_processor_is_named_for_what_it_lacks():
    finding = check_cpu("sse,sse2")
    assert finding.verdict is Verdict.WEAK
    assert "avx2" in finding.found
