"""One spec for all sandboxes: an image restores only where it is equal."""

import json
import os
import subprocess
import sys

from torpor_worker.gvisor.cpu import BASELINE, missing_features, visible_features
from torpor_worker.gvisor.spec import OVERLAY_BYTES, TMPFS_BYTES, sandbox_spec, spec_bytes, spec_sha256


def test_the_spec_is_the_same_in_every_process():
    program = "from torpor_worker.gvisor.spec import spec_sha256; print(spec_sha256())"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "HOME": "/elsewhere"}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == spec_sha256()


def test_the_spec_is_canonical_json():
    assert json.dumps(json.loads(spec_bytes()), sort_keys=True, separators=(",", ":")).encode() == spec_bytes()


def test_what_a_user_can_fill_is_512_mebibytes():
    assert OVERLAY_BYTES + sum(TMPFS_BYTES.values()) == 512 * 1024**2


def test_the_sandbox_has_only_the_supervisors_capabilities():
    process = sandbox_spec()["process"]
    for held in process["capabilities"].values():
        assert held == ["CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_RESOURCE"]
    assert process["noNewPrivileges"]


def test_a_sandbox_sees_no_more_of_the_processor_than_the_baseline():
    host = ",".join([*BASELINE, "avx512f", "sha_ni"])
    assert visible_features(host) == sorted(BASELINE)
    assert missing_features(host) == []
    assert missing_features(host.replace("avx2,", "")) == ["avx2"]
