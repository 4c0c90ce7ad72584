"""A file appears under its name when it is whole, with the permissions of any new file, or not at all."""

import pytest

from probes.errors import UserError
from probes.files import atomic_file


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path, plain = tmp_path / "new" / "a.txt", tmp_path / "plain.txt"
    plain.write_text("")
    for text in ("first", "second"):
        with atomic_file(path) as partial:
            assert (partial.parent, partial.suffix) == (path.parent, ".txt")
            partial.write_text(text)
            assert not path.exists() or path.read_text() == "first"
    assert path.stat().st_mode == plain.stat().st_mode
    with pytest.raises(ZeroDivisionError), atomic_file(path):
        raise ZeroDivisionError
    with pytest.raises(UserError, match=r"cannot write .*a\.txt: No space"), atomic_file(path):
        raise OSError(28, "No space left on device")
    assert path.read_text() == "second"
    with pytest.raises(UserError, match="cannot write"), atomic_file(plain / "b.txt"):
        pass
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.txt", "new", "plain.txt"]
