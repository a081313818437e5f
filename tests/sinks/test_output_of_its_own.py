"""An output contains only what this program wrote: no foreign file, and no foreign bytes in a part."""

from __future__ import annotations

import pytest

from servetel_async import OutputError
from servetel_async.sinks.files.file_sink import FileSink
from tests.sinks.life import finished, open_for
from tests.sinks.test_part import CLAIM, KINDS, begun, days, end, entry, windows  # noqa: F401 - two fixtures


@KINDS
def test_a_foreign_file_is_not_taken_for_the_output(begun, tmp_path, make):  # noqa: F811
    """A kill came before the output was named, and another file has the name: it is refused and kept."""
    sink = begun(make(tmp_path / "a"), 3)
    place = tmp_path / "a"
    place.mkdir() if make is days else place.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        finished(sink)
    sink.abandon()
    again = make(place)
    with pytest.raises(OutputError, match="exists"):
        open_for(again, CLAIM)
    again.abandon()
    if make is days:
        assert list(place.iterdir()) == []
        place.rmdir()
    else:
        assert place.read_text() == "mine"
        place.unlink()
    last = make(place)
    assert open_for(last, CLAIM).entries == [entry(3)]
    end(last)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_part_that_grew_is_refused(begun, tmp_path, resumed):  # noqa: F811
    """Bytes that another program appends to the part never reach the output."""
    sink = begun(FileSink(tmp_path / "a"), 3)
    if resumed:
        sink.abandon()
        sink = FileSink(tmp_path / "a")
        open_for(sink, CLAIM)
    with (tmp_path / "a.part").open("ab") as part:
        part.write(b"x")
    with pytest.raises(OutputError, match="not as this program left it"):
        finished(sink)
    sink.abandon()
    assert not (tmp_path / "a").exists()
