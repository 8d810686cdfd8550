from __future__ import annotations

import asyncio
import re
import threading
import time
from dataclasses import replace
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser

import httpx
import pytest

from reconciler.metrics import Metrics
from reconciler.model import DaemonStatus, Problem, Reason
from reconciler.model.encoding import daemon_as_dict, environment_as_dict, status_as_dict
from tests.unit.web.examples import EXAMPLE, PROBLEM, View, client, daemon, database, environment

EVERY_ADDRESS = (
    "/",
    "/metrics",
    "/healthz",
    "/readyz",
    "/api/v1/environments",
    "/api/v1/environments/dev",
    "/api/v1/environments/dev/dev",
)


class TestHealth:
    async def test_alive_even_when_not_ready(self) -> None:
        async with client(View(daemon(ready=False))) as http:
            response = await http.get("/healthz")
        assert (response.status_code, response.text) == (200, "ok\n")

    async def test_ready(self) -> None:
        async with client() as http:
            response = await http.get("/readyz")
        assert response.status_code == 200
        assert response.json() == {"ready": True, "not_ready_because": None}

    async def test_not_ready_says_why(self) -> None:
        because = "production/orders was not attempted yet"
        async with client(View(daemon(ready=False, not_ready_because=because))) as http:
            response = await http.get("/readyz")
        assert response.status_code == 503
        assert response.json() == {"ready": False, "not_ready_because": because}


class TestStatus:
    async def test_of_everything(self) -> None:
        async with client() as http:
            response = await http.get("/api/v1/environments")
        assert response.headers["content-type"] == "application/json"
        assert response.json() == daemon_as_dict(EXAMPLE)

    async def test_of_an_environment(self) -> None:
        async with client() as http:
            response = await http.get("/api/v1/environments/production")
        assert response.json() == environment_as_dict(EXAMPLE.environments[1])

    async def test_of_a_database(self) -> None:
        async with client() as http:
            response = await http.get("/api/v1/environments/production/orders")
        assert response.json() == status_as_dict(EXAMPLE.environments[1].databases[0])
        assert response.json()["problem"]["line"] == 7

    async def test_follows_the_daemon(self) -> None:
        view = View()
        async with client(view) as http:
            view.status = daemon()
            assert (await http.get("/api/v1/environments")).json()["environments"] == []
            assert (await http.get("/api/v1/environments/dev")).status_code == 404

    async def test_of_an_unknown_environment_names_those_there_are(self) -> None:
        async with client() as http:
            response = await http.get("/api/v1/environments/prod")
        assert response.status_code == 404
        assert response.json() == {
            "error": {"status": 404, "message": "there is no environment 'prod'; there is dev, production"}
        }

    async def test_of_an_unknown_database_names_those_there_are(self) -> None:
        async with client() as http:
            response = await http.get("/api/v1/environments/production/nope")
        assert response.status_code == 404
        message = "environment 'production' has no database 'nope'; it has orders, users"
        assert response.json()["error"]["message"] == message

    async def test_before_anything_was_read(self) -> None:
        async with client(View(daemon(ready=False))) as http:
            response = await http.get("/api/v1/environments/dev")
        assert response.json()["error"]["message"] == "there is no environment 'dev'; there is none yet"

    async def test_with_text_that_is_not_unicode_still_answers(self) -> None:
        problem = replace(PROBLEM, message="no such file: caf\udce9.sql")
        async with client(View(daemon(environment("dev", problem=problem)))) as http:
            response = await http.get("/api/v1/environments/dev")
        assert response.json()["problem"]["message"] == "no such file: caf?.sql"


class TestErrors:
    @pytest.mark.parametrize(
        "path", ["/nope", "/metrics/", "/api/v1/environments/", "/api/v2", "//evil.example/"]
    )
    async def test_an_unknown_path_is_a_404_in_json_and_never_a_redirect(self, path: str) -> None:
        async with client() as http:
            response = await http.get(f"http://reconciler.test{path}")
        assert response.status_code == 404
        assert path in response.json()["error"]["message"]

    @pytest.mark.parametrize("path", EVERY_ADDRESS)
    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
    async def test_only_reading_is_allowed(self, path: str, method: str) -> None:
        async with client() as http:
            response = await http.request(method, path)
        assert response.status_code == 405
        assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD"}
        assert method in response.json()["error"]["message"]

    async def test_a_failure_within_tells_strangers_nothing(self) -> None:
        view = View()
        view.error = RuntimeError("password=hunter2")
        async with client(view) as http:
            response = await http.get("/api/v1/environments")
        assert response.status_code == 500
        assert response.json()["error"]["message"].startswith("internal error")
        assert "hunter2" not in response.text
        assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", [*EVERY_ADDRESS, "/nope", "/api/v1/environments/nope"])
async def test_every_answer_carries_the_common_headers(path: str) -> None:
    async with client() as http:
        headers = (await http.get(path)).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert abs(parsedate_to_datetime(headers["date"]).timestamp() - time.time()) < 60


class TestMetrics:
    async def test_are_rendered_for_the_accept_header(self) -> None:
        metrics = Metrics()
        async with client(render_metrics=metrics.render) as http:
            text = await http.get("/metrics", headers={"Accept": "*/*"})
            open_metrics = await http.get("/metrics", headers={"Accept": "application/openmetrics-text"})
        assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert 'reconciler_current_version{database="orders",environment="production"} 41.0' in text.text
        assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
        assert open_metrics.text.endswith("# EOF\n")

    async def test_are_rendered_off_the_event_loop_one_at_a_time_and_kept_for_a_moment(self) -> None:
        renderings: list[str] = []
        release = threading.Event()
        active = 0
        most = 0

        def render(accept: str, status: DaemonStatus) -> tuple[bytes, str]:
            nonlocal active, most
            active += 1
            most = max(most, active)
            release.wait(30)
            renderings.append(accept)
            active -= 1
            return accept.encode(), "text/plain"

        async with client(render_metrics=render) as http:

            async def scrape(accept: str) -> httpx.Response:
                response: httpx.Response = await http.get("/metrics", headers={"Accept": accept})
                return response

            scrapes = [asyncio.create_task(scrape(accept)) for accept in ("a/a", "b/b") * 10]
            # the renderer is stuck, and still the loop answers
            assert (await http.get("/healthz")).status_code == 200
            release.set()
            responses = await asyncio.gather(*scrapes)
        assert sorted(renderings) == ["a/a", "b/b"]
        assert most == 1
        assert [response.text for response in responses] == ["a/a", "b/b"] * 10

    async def test_a_failed_rendering_is_not_kept(self) -> None:
        calls: list[str] = []

        def render(accept: str, status: DaemonStatus) -> tuple[bytes, str]:
            calls.append(accept)
            if len(calls) == 1:
                raise RuntimeError("broken")
            return b"fine", "text/plain"

        async with client(render_metrics=render) as http:
            assert (await http.get("/metrics")).status_code == 500
            assert (await http.get("/metrics")).text == "fine"


class TestPage:
    async def page(self, status: DaemonStatus = EXAMPLE) -> str:
        async with client(View(status)) as http:
            response = await http.get("/")
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        text: str = response.text
        return text

    async def test_names_every_address_and_every_database(self) -> None:
        page = await self.page()
        for path in ("/metrics", "/healthz", "/readyz", "/api/v1/environments"):
            assert f'<a href="{path}">' in page
        assert "<td>users</td><td>42</td><td>42</td><td>in_sync</td>" in page
        assert "<td>orders</td><td>42</td><td>41</td><td>failed: StatementFailed: migrations/" in page

    async def test_every_link_leads_somewhere(self) -> None:
        async with client() as http:
            links = re.findall(r'href="([^"]*)"', (await http.get("/")).text)
            assert len(links) >= 6
            for link in links:
                assert (await http.get(link)).status_code == 200, link

    async def test_text_from_outside_is_text(self) -> None:
        hostile = "<script>alert('\"')</script>"
        problem = Problem(reason=Reason.MANIFEST_INVALID, message=hostile)
        status = replace(
            daemon(
                environment(hostile, replace(database(hostile, hostile), problem=problem), problem=problem),
                environment(hostile + "2"),
                ready=False,
                not_ready_because=hostile,
            ),
            problems=(problem,),
        )
        page = await self.page(status)
        tags: list[str] = []

        class Tags(HTMLParser):
            def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
                tags.append(tag)
                assert {name for name, _ in attrs} <= {"href", "lang", "charset"}

        Tags().feed(page)
        assert "script" not in tags
        assert "alert" in page

    async def test_lets_no_secret_out(self) -> None:
        leaky = replace(PROBLEM, message="cannot connect to postgresql://app:hunter2@db/orders")
        page = await self.page(
            daemon(environment("dev", database("dev", "dev", problem=leaky), problem=leaky))
        )
        assert "cannot connect" in page
        assert "hunter2" not in page

    async def test_needs_nothing_that_the_content_security_policy_forbids(self) -> None:
        page = await self.page()
        assert not re.search(r"<(script|style|img|link|iframe|form)|style=|javascript:| on\w+=", page)

    async def test_before_anything_was_read(self) -> None:
        page = await self.page(daemon(ready=False))
        assert "not read yet" in page
        assert "Not ready: starting" in page
