"""Changes of sequences under ``If-Match`` and ``If-None-Match``."""

import pytest

from tests.api.answers import refused
from tests.api.sequences import COLLECTION, JSON, SHARED, created, position, put, tagged
from tests.service import Serve, Service


class TestPreconditions:
    def test_change_under_a_stale_tag_is_412(self, service: Service) -> None:
        path = created(service)
        put(service, path, 5)
        size = service.file.stat().st_size
        for stale in ('"4"', '"6"', '""', 'W/"5"', "", "nonsense", '"4", "6"', '"05"', '"*"'):
            for method, rest in (("POST", "/next"), ("POST", "/previous?by=2"), ("DELETE", "")):
                answer = service.ask(path + rest, method, {"If-Match": stale})
                refused(answer, 412, "it is at position 5", position="5")
                assert tagged(answer[0]) == 5
            answer = service.ask(path, "PUT", JSON | {"If-Match": stale}, b'{"position":"1"}')
            refused(answer, 412, position="5")
        assert service.file.stat().st_size == size
        assert position(service, path) == 5

    def test_change_under_a_current_tag_is_made(self, service: Service) -> None:
        path = created(service)
        for at, tag in enumerate(('"0"', "*", '"7", "2"', '"x","3","y"')):
            reply, _ = service.ask(f"{path}/next", "POST", {"If-Match": tag})
            assert tagged(reply) == at + 1
        reply, _ = service.ask(path, "PUT", JSON | {"If-Match": '"4"'}, b'{"position":"9"}')
        assert tagged(reply) == 9
        assert service.ask(path, "DELETE", {"If-Match": '"9"'})[0].status == 204

    def test_the_same_step_twice_is_made_once(self, service: Service) -> None:
        path = created(service)
        answers = [
            service.ask(f"{path}/next?by=3", "POST", {"If-Match": '"0"'})[0].status
            for _ in range(3)
        ]
        assert answers == [200, 412, 412]
        assert position(service, path) == 3

    @pytest.mark.parametrize(
        ("headers", "says"),
        [
            ({"If-None-Match": "*"}, "If-None-Match"),
            ({"If-None-Match": " * "}, "If-None-Match"),
            ({"If-None-Match": '"5"'}, "If-None-Match"),
            ({"If-None-Match": 'W/"5"'}, "If-None-Match"),
            ({"If-None-Match": '"4", "5"'}, "If-None-Match"),
            ({"If-None-Match": ',"4" ,, W/"5",'}, "If-None-Match"),
            # Two header lines, as bjoern joins them.
            ({"If-None-Match": '"4""5"'}, "If-None-Match"),
            # Tags that cannot be parsed.
            ({"If-None-Match": "5"}, "If-None-Match"),
            ({"If-None-Match": '"4", nonsense'}, "If-None-Match"),
            ({"If-None-Match": '"4'}, "If-None-Match"),
            ({"If-None-Match": '*, "4"'}, "If-None-Match"),
            ({"If-Match": "*", "If-None-Match": "*"}, "If-None-Match"),
            ({"If-Match": '"5"', "If-None-Match": '"5"'}, "If-None-Match"),
            # If-Match is evaluated first (RFC 9110, 13.2.2).
            ({"If-Match": '"4"', "If-None-Match": "*"}, "If-Match"),
            ({"If-Match": '"4"', "If-None-Match": '"4"'}, "If-Match"),
            ({"If-Match": '"4"', "If-None-Match": '"9"'}, "If-Match"),
        ],
        ids=str,
    )
    def test_change_where_if_none_match_excludes_it_is_not_made(
        self, service: Service, headers: dict[str, str], says: str
    ) -> None:
        own = created(service)
        for path in (own, SHARED):
            put(service, path, 5)
            size = service.file.stat().st_size
            for method, rest in (
                *(("PUT", ""), ("POST", "/next"), ("POST", "/next?by=9")),
                *(("POST", "/previous"), ("DELETE", "")),
            ):
                if (path, method) == (SHARED, "DELETE"):
                    continue
                body = b'{"position":"1"}' if method == "PUT" else None
                answer = service.ask(path + rest, method, JSON | headers, body)
                refused(answer, 412, f"{says} ", position="5")
                assert tagged(answer[0]) == 5
            assert service.file.stat().st_size == size
            assert position(service, path) == 5

    @pytest.mark.parametrize(
        "headers",
        [
            {"If-None-Match": '"4"'},
            {"If-None-Match": 'W/"4", "6"'},
            {"If-None-Match": '"4""6"'},
            {"If-None-Match": '"*"'},
            {"If-None-Match": ""},
            {"If-Match": '"5"', "If-None-Match": '"4"'},
            {"If-Match": '"4", "5"', "If-None-Match": '"4"'},
            {"If-Match": "*", "If-None-Match": '"4"'},
        ],
        ids=str,
    )
    def test_change_where_if_none_match_does_not_exclude_it_is_made(
        self, service: Service, headers: dict[str, str]
    ) -> None:
        path = created(service)
        for method, rest, leads_to in (
            *(("POST", "/next", 6), ("POST", "/previous?by=2", 3), ("PUT", "", 9)),
        ):
            put(service, path, 5)
            body = b'{"position":"9"}' if method == "PUT" else None
            reply, _ = service.ask(path + rest, method, JSON | headers, body)
            assert (reply.status, tagged(reply)) == (200, leads_to)
        put(service, path, 5)
        assert service.ask(path, "DELETE", headers)[0].status == 204

    def test_change_if_none_match_any_of_what_is_missing_is_404(self, service: Service) -> None:
        missing = f"{COLLECTION}/{'0' * 32}"
        for method, rest in (("POST", "/next"), ("POST", "/previous"), ("DELETE", "")):
            refused(service.ask(missing + rest, method, {"If-None-Match": "*"}), 404)

    def test_shared_sequence_that_nobody_has_stepped_exists(self, serve: Serve) -> None:
        service = serve()
        headers = JSON | {"If-None-Match": "*"}
        refused(service.ask(SHARED, "PUT", headers, b'{"position":"7"}'), 412, position="0")
        headers = JSON | {"If-None-Match": '"7"'}
        assert service.ask(SHARED, "PUT", headers, b'{"position":"7"}')[0].status == 200
        assert service.ask(SHARED, "PUT", headers, b'{"position":"8"}')[0].status == 412

    def test_tag_of_more_digits_than_python_writes_matches_nothing(self, service: Service) -> None:
        tag = f'"{"9" * 5000}"'
        refused(service.ask(f"{SHARED}/next", "POST", {"If-Match": tag}), 412, position="0")
        assert service.ask(f"{SHARED}/next", "POST", {"If-None-Match": tag})[0].status == 200

    def test_look_under_a_known_tag_is_304(self, service: Service) -> None:
        path = created(service)
        put(service, path, 30)
        shown, body = service.ask(path)
        tag = shown.headers["ETag"]
        for method in ("GET", "HEAD"):
            for known in (tag, f"W/{tag}", "*", f'"x", {tag}'):
                reply, nothing = service.ask(path, method, {"If-None-Match": known})
                assert (reply.status, nothing) == (304, b"")
                assert reply.headers["ETag"] == tag
            # The position alone is the tag of no reply.
            for other in ('"30"', '"29"', '"*"', tag.replace("-", "-1")):
                assert service.ask(path, method, {"If-None-Match": other})[0].status == 200
            for met in (tag, '"30"', f'"x", {tag}'):
                assert service.ask(path, method, {"If-Match": met})[0].status == 200
            for unmet in ('"*"', '"29"', f"W/{tag}", tag.replace("30-", "29-")):
                assert service.ask(path, method, {"If-Match": unmet})[0].status == 412
        reply, nothing = service.ask(path, "HEAD")
        assert nothing == b""
        assert reply.headers["Content-Length"] == str(len(body))
        for one in (shown, reply):
            del one.headers["Date"]
        assert reply.headers.items() == shown.headers.items()


class TestVersions:
    """The tag of a reply is good for one change; the position alone is good for others, too."""

    @pytest.fixture(params=["log", "database"])
    def service(self, request: pytest.FixtureRequest, serve: Serve) -> Service:
        if request.param == "log":
            return serve()
        return serve("--store", request.getfixturevalue("database"))

    def test_change_with_the_tag_is_made_once_although_the_position_is_back(
        self, service: Service
    ) -> None:
        own = created(service)
        for path in (own, SHARED):
            for method, rest, body in (
                ("POST", "/next", None),
                ("POST", "/previous?by=2", None),
                ("PUT", "", b'{"position":"9"}'),
            ):
                tag = put(service, path, 5)[0].headers["ETag"]
                stepped, _ = service.ask(path + rest, method, JSON | {"If-Match": tag}, body)
                assert stepped.status == 200
                moved, _ = put(service, path, 5)
                answer = service.ask(path + rest, method, JSON | {"If-Match": tag}, body)
                refused(answer, 412, "it is at position 5", position="5")
                assert answer[0].headers["ETag"] == moved.headers["ETag"]
                tags = [tag, stepped.headers["ETag"], moved.headers["ETag"]]
                assert len(set(tags)) == 3
                alone = service.ask(path + rest, method, JSON | {"If-Match": '"5"'}, body)
                assert alone[0].status == 200
        deleted = service.ask(own, "DELETE", {"If-Match": tags[0]})
        refused(deleted, 412)
        tag = service.ask(own)[0].headers["ETag"]
        assert service.ask(own, "DELETE", {"If-Match": tag})[0].status == 204

    def test_every_reply_has_the_tag_of_the_last_change(self, service: Service) -> None:
        path = created(service)
        tag = put(service, path, 1)[0].headers["ETag"]
        for method, rest, headers, status in (
            ("GET", "", {}, 200),
            ("HEAD", "", {}, 200),
            ("GET", "", {"If-None-Match": tag}, 304),
            ("GET", "", {"If-Match": '"0"'}, 412),
            ("POST", "/next", {"If-Match": '"0"'}, 412),
            ("POST", "/next", {"If-None-Match": tag}, 412),
            ("POST", "/previous?by=2", {}, 409),
            ("PUT", "", {"If-None-Match": "*"}, 412),
        ):
            reply, _ = service.ask(path + rest, method, headers)
            assert (reply.status, reply.headers["ETag"]) == (status, tag), (method, rest)

    def test_tags_of_both_kinds_are_alternatives(self, service: Service) -> None:
        path = created(service)
        old = put(service, path, 5)[0].headers["ETag"]
        for headers, status in (
            ({"If-Match": f'"9", {old}'}, 200),
            ({"If-Match": f'{old}, "6"'}, 200),
            ({"If-Match": f'{old}, "9-1", "05", W/"7"'}, 412),
            ({"If-Match": f'"7-{"9" * 30}"'}, 412),
            ({"If-None-Match": '"7"'}, 412),
            ({"If-None-Match": f'{old}, "7-0"'}, 200),
            ({"If-Match": '"8"', "If-None-Match": old}, 200),
        ):
            reply, body = service.ask(f"{path}/next", "POST", headers)
            assert reply.status == status, (headers, body)
        assert position(service, path) == 9

    def test_tag_of_a_deleted_sequence_does_not_count_for_the_next_of_its_id(
        self, service: Service
    ) -> None:
        path = created(service)
        tag = service.ask(path)[0].headers["ETag"]
        assert service.ask(path, "DELETE")[0].status == 204
        assert service.ask(path, "PUT", {"If-None-Match": "*"})[0].status == 201
        refused(service.ask(f"{path}/next", "POST", {"If-Match": tag}), 412, position="0")

    def test_shared_sequence_is_created_by_one_change_with_its_tag(self, service: Service) -> None:
        tag = service.ask(SHARED)[0].headers["ETag"]
        answers = [
            service.ask(f"{SHARED}/next?by=3", "POST", {"If-Match": tag})[0].status
            for _ in range(2)
        ]
        assert (tag, answers, position(service, SHARED)) == ('"0-0"', [200, 412], 3)
