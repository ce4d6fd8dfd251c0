"""A file is complete or absent, whatever happens while it is written."""

import os
import stat

import pytest

from systolic._files import check_target, folder_of, write_file, write_folder, write_zip


def test_takes_the_place_of_the_old_one(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write(file):
        file.write("new")
        assert target.read_text() == "old"

    write_file(target, write, "w", encoding="ascii")
    assert target.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_of_a_failure(tmp_path, error):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def write(file):
        file.write(b"half")
        raise error

    with pytest.raises(error):
        write_file(target, write)
    assert target.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.bin"]


def test_nothing_is_left_where_a_folder_stands(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").touch()
    with pytest.raises(OSError):
        write_file(tmp_path / "folder", lambda file: file.write(b"new"))
    with pytest.raises(OSError):
        write_folder(tmp_path / "folder", lambda folder: (folder / "other").touch())
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_what_is_no_plain_file_is_kept(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "broken").symlink_to("nothing")
    before = sorted(tmp_path.iterdir())
    for name in ("pipe", "link", "broken"):
        with pytest.raises(ValueError, match=f"{name} is not a plain file; name a file$"):
            write_file(tmp_path / name, lambda file: file.write(b"new"))
    for name in ("new/", "new/.", "new/..", "pipe/"):
        with pytest.raises(ValueError, match="^path must be the name of a file, not '.*/"):
            write_file(f"{tmp_path}/{name}", lambda file: file.write(b"new"))
    assert sorted(tmp_path.iterdir()) == before and stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_a_link_to_a_file_is_replaced(tmp_path):
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to("old")
    write_file(tmp_path / "link", lambda file: file.write(b"new"))
    assert (tmp_path / "link").read_text() == "new" and (tmp_path / "old").read_text() == "old"


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_permissions_are_those_of_a_new_file(tmp_path):
    old = os.umask(0o027)
    try:
        write_file(tmp_path / "a", lambda file: file.write(b""))
        write_folder(tmp_path / "b", lambda folder: (folder / "c").touch())
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(old)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "b", "b/c")]
    assert modes == [0o640, 0o750, 0o640]


def test_the_longest_name_there_is(tmp_path):
    write_file(tmp_path / ("x" * 255), lambda file: file.write(b"new"))
    assert os.listdir(tmp_path) == ["x" * 255]


def test_no_process_wide_state(tmp_path, monkeypatch):
    # Another thread would see it, and an interrupt would leave it.
    monkeypatch.delattr("os.umask")
    monkeypatch.delattr("os.chmod")
    write_file(tmp_path / "a", lambda file: file.write(b""))
    write_folder(tmp_path / "b", lambda folder: None)
    write_zip(tmp_path / "c", lambda archive: archive.writestr("d", b""))
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^there is no folder .*nowhere to write a\.txt to$"):
        folder_of(tmp_path / "nowhere" / "a.txt")


def test_it_is_known_before_whether_a_file_can_be_written(tmp_path, monkeypatch):
    target = tmp_path / "a.bin"
    check_target(target)
    target.write_text("old")
    check_target(target)
    with pytest.raises(IsADirectoryError, match="name a file in it"):
        check_target(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        check_target(tmp_path / "no" / "a.bin")
    # Root may write to every folder.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="no permission to write a.bin to the folder"):
        check_target(target)
    with pytest.raises(PermissionError):
        write_file(target, lambda file: file.write(b"new"))
    assert target.read_text() == "old"
