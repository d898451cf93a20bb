"""The policy of the page: it may only use the service that it came from."""

from tests.page.conftest import Open
from tests.service import Service


def test_policy_stops_scripts_and_other_hosts(service: Service, open_page: Open) -> None:
    page = open_page(service)
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.hasRun = true";
            document.body.append(script);
        }"""
    )
    assert page.evaluate("window.hasRun") is None
    inline = len(open_page.wrong)
    assert inline > 0
    assert page.evaluate("fetch('http://127.0.0.1:9/').catch(error => error.name)") == "TypeError"
    assert len(open_page.wrong) > inline
    open_page.wrong.clear()


def test_request_to_another_host_without_the_policy_is_noticed(
    service: Service, open_page: Open
) -> None:
    page = open_page(service, bypass_csp=True)
    page.evaluate("fetch('http://127.0.0.1:9/').catch(error => error.name)")
    assert open_page.wrong == ["asks for http://127.0.0.1:9/"]
    open_page.wrong.clear()
