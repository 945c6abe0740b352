from __future__ import annotations

from pathlib import Path

import pytest

from torpor_snapshotter.runtimes.errors import MirrorUnknown, NotOnMirror
from torpor_snapshotter.runtimes.mirror import apt_mirrors, choose_mirror

DEBIAN_RELEASE = b"-----BEGIN PGP SIGNED MESSAGE-----\n\nOrigin: Debian\nCodename: trixie\n"


@pytest.fixture
def apt_dir(tmp_path: Path) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def test_one_line_sources_are_read(apt_dir: Path):
    (apt_dir / "sources.list").write_text(
        "# deb http://commented.test/debian bookworm main\n"
        "deb-src http://sources.test/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/a/key.gpg] http://mirror.test/debian/ bookworm main contrib # ours\n"
        "deb http://security.test/debian-security bookworm-security main\n"
        "deb http://vendor.test/apt stable-of-theirs main\n"
        "deb http://vendor.test/linux/debian bookworm stable\n"
    )

    assert apt_mirrors(apt_dir) == ["http://mirror.test/debian"]


def test_deb822_sources_are_read(apt_dir: Path):
    (apt_dir / "sources.list.d" / "debian.sources").write_text(
        "Types: deb deb-src\n# a comment\nURIs: http://one.test/debian\n http://two.test/debian\n"
        "Suites: bookworm bookworm-updates\nComponents: main\nSigned-By:\n -----BEGIN KEY-----\n .\n abc\n"
        "\n"
        "Types: deb\nURIs: http://off.test/debian\nSuites: trixie\nComponents: main\nEnabled: no\n"
        "\n"
        "Types: deb\nURIs: http://security.test/debian-security\nSuites: trixie-security\nComponents: main\n"
    )

    assert apt_mirrors(apt_dir) == ["http://one.test/debian", "http://two.test/debian"]


def test_a_mirror_list_file_is_followed(apt_dir: Path):
    listed = apt_dir / "mirrors.list"
    listed.write_text("# best first\nhttp://near.test/debian\tpriority:1\n")
    (apt_dir / "sources.list").write_text(f"deb mirror+file:{listed} trixie main\n")

    assert apt_mirrors(apt_dir) == ["http://near.test/debian"]


def test_the_setting_wins_over_the_configuration(apt_dir: Path):
    def fetch(url: str) -> bytes:
        raise AssertionError(url)

    assert choose_mirror(apt_dir, "http://mine.test/debian/", "trixie", fetch) == "http://mine.test/debian"


def test_the_first_mirror_that_is_debian_and_has_the_suite_is_taken(apt_dir: Path):
    names = ["gone", "other", "good"]
    lines = [f"deb http://{name}.test/debian trixie main\n" for name in names]
    (apt_dir / "sources.list").write_text("".join(lines))

    def fetch(url: str) -> bytes:
        if url.startswith("http://gone"):
            raise NotOnMirror(url)
        return DEBIAN_RELEASE if url == "http://good.test/debian/dists/trixie/InRelease" else b"Origin: Vendor\n"

    assert choose_mirror(apt_dir, None, "trixie", fetch) == "http://good.test/debian"


def test_without_any_mirror_the_error_says_what_to_set(apt_dir: Path):
    with pytest.raises(MirrorUnknown, match="Set TORPOR_DEBIAN_MIRROR"):
        choose_mirror(apt_dir, None, "trixie", lambda _: b"")
