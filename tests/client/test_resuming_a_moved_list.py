"""What a checkpoint is worth while a list is read again because it moved."""

import pytest

from servetel_async import CallQuery, Retry, ServerError, ServetelClient
from servetel_async.emulator import Dataset, Emulator, Fault

MAY = CallQuery.month("2024-05")


async def test_a_list_that_is_read_again_has_no_checkpoint():
    """Calls in front of any place may still be missing then, so going on from a place could lose one: there is none."""
    data = Dataset.month("2024-05", calls=250)
    async with (
        Emulator(data) as api,
        ServetelClient(
            api.token, base_url=api.base_url, rate=None, page_size=50, max_concurrency=1, retry=Retry(attempts=1)
        ) as client,
    ):
        got = []
        stream = client.calls(query=MAY)
        with pytest.raises(ServerError) as failure:
            async for call in stream:
                got.append(call.id)
                if len(got) == 40:
                    api.delete(
                        data.ids[3]
                    )  # what stands behind moves up by one: a call slips through between two pages
                if len(got) == 60:
                    assert stream.checkpoint is not None
                if len(got) == 150:
                    api.add_fault(Fault("status", status=503, page=1))  # the second reading begins with page 1

    assert stream.stats.rereadings == 1
    assert len(got) < 250
    assert failure.value.checkpoint is None
    assert stream.checkpoint is None
