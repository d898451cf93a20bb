"""Parts of terms by ``Range``."""

import random

import pytest

from tests.api.answers import TEXT, Get, expected_text, refused
from tests.api.test_term_caching import TestKeeping


class TestRange:
    def test_range_at_random_equals_the_slice(self, get: Get) -> None:
        randomness = random.Random(6)
        for path, headers in TestKeeping.FORMS:
            whole = get(path, headers)[1]
            for _ in range(40):
                first = randomness.randrange(len(whole))
                last = randomness.randrange(first, len(whole) + 50)
                reply, part = get(path, headers | {"Range": f"bytes={first}-{last}"})
                assert reply.status == 206
                end = min(last, len(whole) - 1)
                assert reply.headers["Content-Range"] == f"bytes {first}-{end}/{len(whole)}"
                assert part == whole[first : last + 1]

    @pytest.mark.parametrize(
        ("asked", "part"),
        [
            ("bytes=0-0", slice(0, 1)),
            ("bytes=208-", slice(208, None)),
            ("bytes=-1", slice(-1, None)),
            ("bytes=-9999", slice(None)),
            ("bytes=200-9999", slice(200, None)),
        ],
    )
    def test_range_in_every_form_equals_the_slice(self, get: Get, asked: str, part: slice) -> None:
        whole = expected_text(1000)
        assert len(whole) == 209
        reply, body = get("/1000", TEXT | {"Range": asked})
        assert reply.status == 206
        assert body == whole[part]

    @pytest.mark.parametrize("asked", ["bytes=209-", "bytes=209-300", "bytes=99999-", "bytes=-0"])
    def test_range_after_the_end_is_416(self, get: Get, asked: str) -> None:
        answer = get("/1000", TEXT | {"Range": asked})
        refused(answer, 416, "There are 209 bytes, numbered from 0")
        assert answer[0].headers["Content-Range"] == "bytes */209"

    @pytest.mark.parametrize(
        "asked",
        [
            "bytes=0-1,5-6",
            "lines=0-1",
            "bytes=5-1",
            "bytes=x-",
            "bytes",
            "bytes=+1-2",
            "bytes=1_0-20",
            "-",
        ],
    )
    def test_text_that_is_no_range_gives_the_whole(self, get: Get, asked: str) -> None:
        reply, body = get("/1000", TEXT | {"Range": asked})
        assert reply.status == 200
        assert body == expected_text(1000)

    def test_range_under_another_tag_gives_the_whole(self, get: Get) -> None:
        tag = get("/1000", TEXT)[0].headers["ETag"]
        asked = TEXT | {"Range": "bytes=3-5"}
        assert get("/1000", asked | {"If-Range": tag})[1] == expected_text(1000)[3:6]
        for other in ('"x"', f"W/{tag}", "Wed, 21 Oct 2015 07:28:00 GMT", "*"):
            reply, body = get("/1000", asked | {"If-Range": other})
            assert (reply.status, body) == (200, expected_text(1000))

    def test_download_that_is_resumed_is_the_whole(self, get: Get) -> None:
        got, tag = b"", ""
        for piece in (1, 50_000, 3, 100_000, 10**9):
            asked = {"Range": f"bytes={len(got)}-{len(got) + piece - 1}"} | (
                {"If-Range": tag} if tag else {}
            )
            reply, body = get("/987654", TEXT | asked)
            assert reply.status == 206
            tag = reply.headers["ETag"]
            got += body
        assert got == expected_text(987_654)
