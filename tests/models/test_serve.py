"""Predictions over HTTP and on the command line say what the predictor says, and refuse what they cannot answer."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import psutil
import pytest
from starlette.testclient import TestClient

from kg.api import create_app, link_router
from models import explain, serve
from models.predictor import Answer, Predictor, load_predictors
from models.serve import predict_router

pytestmark = pytest.mark.neo4j
TEXT = "🙂 Liv Stensrud left Acme Bank after 3 days."
TOKEN = "0123456789abcdef"
HOSTILE = "Halden Assurance <script>alert(1)</script>"
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def predictors(finetuned: Path) -> Mapping[str, Predictor]:
    return load_predictors(finetuned)


@pytest.fixture(scope="module")
def client(predictors: Mapping[str, Predictor]) -> TestClient:
    return client_of(predictors)


def client_of(predictors: Mapping[str, Predictor], *, token: str | None = None, limit: int = 4_000_000) -> TestClient:
    linker = predictors["kind"].encoder.linker
    app = create_app(predict_router(predictors), link_router(linker), token=token, max_body_bytes=limit)
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)


def moved_by(answer: Answer, *, facts: bool) -> list[dict[str, object]]:
    return [
        {
            "link": reason.link,
            "id": answer.links[reason.link].id,
            "name": answer.links[reason.link].name,
            "influence": reason.influence,
            "without": reason.without,
            "attention": reason.attention,
            "gate": reason.gate,
            **({"facts": list(reason.facts)} if facts else {}),
        }
        for reason in answer.reasons
    ]


@pytest.mark.parametrize("task", [None, "kind", "names"])
@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_a_text_is_answered_as_in_python(
    path: str, task: str | None, client: TestClient, predictors: Mapping[str, Predictor]
) -> None:
    response = client.post(path, json={"text": TEXT} | ({"task": task} if task else {}))
    assert response.status_code == 200
    answer = predictors[task or "kind"].predict(TEXT)
    said = json.loads(json.dumps(answer.as_json()))
    del said["reasons"], said["words"]
    expected = {
        **said,
        "moved_by": moved_by(answer, facts=path == "/explain"),
        "snapshot": predictors["kind"].encoder.linker.snapshot.hash,
    }
    assert response.json() == expected
    assert response.json()["links"] == client.post("/link", json={"text": TEXT}).json()["links"]
    assert [TEXT[link["start"] : link["end"]] for link in expected["links"]] == ["Liv Stensrud", "Acme Bank"]
    assert len(expected["moved_by"]) == 2


def test_a_text_without_entities_or_of_nothing_is_answered(client: TestClient) -> None:
    for text in ("", "It rained.", "\x00"):
        for task in ("kind", "names"):
            response = client.post("/explain", json={"text": text, "task": task})
            assert response.status_code == 200
            assert response.json()["moved_by"] == []


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"text": "a", "task": "mood"}', "it has kind, names"),
        (b'{"text": "a", "tasks": "kind"}', "tasks"),
        (b'{"text": "a", "task": 1}', "task"),
        (b'{"text": "\\ud800"}', ""),
        (b'{"text": null}', "text"),
        (b"{}", "text"),
        (b"[]", ""),
        (b'{"text"', ""),
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_a_request_that_cannot_be_answered_is_a_problem(
    path: str, body: bytes, detail: str, client: TestClient
) -> None:
    response = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == 422
    assert detail in response.json()["detail"]
    assert "Traceback" not in response.text


def test_a_body_over_the_limit_is_refused(predictors: Mapping[str, Predictor]) -> None:
    client = client_of(predictors, limit=1000)
    assert client.post("/predict", json={"text": "a" * 900}).status_code == 200
    response = client.post("/predict", json={"text": "a" * 1000})
    assert (response.status_code, response.headers["content-type"]) == (413, "application/problem+json")


def test_a_token_is_asked_for_where_there_is_one(predictors: Mapping[str, Predictor]) -> None:
    client = client_of(predictors, token=TOKEN)
    for path in ("/predict", "/explain"):
        assert client.post(path, json={"text": TEXT}).status_code == 401
        assert client.post(path, json={"text": TEXT}, headers={"Authorization": "Bearer no"}).status_code == 401
        accepted = client.post(path, json={"text": TEXT}, headers={"Authorization": f"Bearer {TOKEN}"})
        assert accepted.status_code == 200


def test_the_api_describes_its_predictions(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert {"/predict", "/explain", "/link"} <= described["paths"].keys()
    fields = described["components"]["schemas"]["Prediction"]["properties"]
    assert {"label", "probabilities", "spans", "links", "moved_by", "influence", "snapshot"} <= fields.keys()
    page = client.get("/docs")
    assert page.status_code == 200
    assert "/predict" in page.text
    assert "/explain" in page.text


def test_a_page_of_another_name_gets_no_answer(client: TestClient) -> None:
    assert client.post("/predict", json={"text": "a"}, headers={"Host": "evil.example"}).status_code == 400


def test_explain_prints_the_answer_and_what_moved_it(
    finetuned: Path, predictors: Mapping[str, Predictor], capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain.main([str(finetuned), TEXT]) == 0
    printed = capsys.readouterr().out
    answer = predictors["kind"].predict(TEXT)
    assert printed.startswith(f"kind: {answer.label} (")
    for reason in answer.reasons:
        assert f"{reason.influence:+.3f}" in printed
        assert f"→ {answer.links[reason.link].name} (" in printed
        assert f"attention {reason.attention:.2f}, gate {reason.gate:.2f}; without it: {reason.without}" in printed
        assert all(fact in printed for fact in reason.facts)
    assert explain.main([str(finetuned), "--task", "names", "It rained."]) == 0
    assert "rests on the words alone" in capsys.readouterr().out


@pytest.mark.parametrize("task", ["kind", "names"])
def test_explain_prints_json(
    task: str, finetuned: Path, predictors: Mapping[str, Predictor], capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (False, True):
        assert explain.main([str(finetuned), TEXT, "--task", task, "--json", *(["--words"] if words else [])]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said == json.loads(json.dumps(predictors[task].predict(TEXT, words=words).as_json()))
        assert (said["words"] is not None) == words


def test_explain_prints_the_words_and_marks_them_on_the_page(
    finetuned: Path, predictors: Mapping[str, Predictor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = predictors["kind"].predict(TEXT, words=True).words
    assert explain.main([str(finetuned), TEXT, "--words"]) == 0
    printed = capsys.readouterr().out
    assert f"words, from {words.baseline:.2f} for a text of masks" in printed
    assert all(f"{word.attribution:+.3f}  {word.text}" in printed for word in words.words)
    assert explain.main([str(finetuned), TEXT, "--words", "--html", str(tmp_path / "page.html")]) == 0
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.tags.count("mark") == 2 + len(words.words)
    assert page.words.count(TEXT) == 2  # with its entities, and with its words
    assert page.titles[-1] == f"{words.words[-1].attribution:+.3f}"


class Page(HTMLParser):
    """The tags, attributes and words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.titles: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.titles += [value or "" for name, value in attrs if name == "title"]

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.parametrize("task", ["kind", "names"])
def test_explain_writes_a_page_on_which_no_script_of_a_text_or_a_name_runs(
    task: str, finetuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f'<script>alert(2)</script> {{0}} {HOSTILE} and Liv Stensrud & "Acme Bank" rose.'
    file = tmp_path / "page.html"
    assert explain.main([str(finetuned), text, "--task", task, "--html", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    html = file.read_text(encoding="utf-8")
    page = Page(html)
    assert "script" not in page.tags
    assert page.tags.count("mark") == 3
    assert text in page.words  # whole, and nothing of it taken for markup
    assert any(HOSTILE in title for title in page.titles)  # the name of an entity
    assert not re.search(r"(src|href|url)\s*[=(]", html)
    assert "default-src 'none'" in html


def test_json_and_a_page_at_once_are_refused(
    finetuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "page.html"
    assert explain.main([str(finetuned), TEXT, "--json", "--html", str(file)]) == 2
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert "--json or --html" in output.err
    assert not file.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{run}", "a", "--task", "mood"], "it has kind, names"),
        (["{run}/nowhere", "a"], "not a run folder"),
        (["{run}", "a", "--html", "{run}/none/page.html"], "there is no folder"),
    ],
)
def test_explain_refuses_in_one_line(
    arguments: list[str], said: str, finetuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain.main([argument.format(run=finetuned) for argument in arguments]) == 2
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert said in output.err


def test_an_argument_that_is_no_text_is_refused_in_one_line(
    finetuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain.main([str(finetuned), os.fsdecode(b"Acme Bank \xff rose")]) == 2
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_an_open_address_needs_a_token(host: str, finetuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main([str(finetuned), "--host", host]) == 2
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert "KGFUSE_API_TOKEN" in output.err


def test_a_folder_that_is_no_run_is_not_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main([str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert "not a run folder" in output.err


def test_a_server_answers_until_it_is_terminated_and_leaves_nobody_behind(
    finetuned: Path, cli_env: dict[str, str]
) -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "models.serve", str(finetuned), "--port", "0"],
        env={**cli_env, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        found = re.search(r":(\d+),", server.stdout.readline())
        assert found is not None
        port = int(found[1])
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/predict",
            data=json.dumps({"text": "Acme Bank rose in week 1."}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            said = json.load(answer)
        assert (said["label"], said["links"][0]["id"]) == ("bank", "ex:c0")
        children = psutil.Process(server.pid).children(recursive=True)
        server.send_signal(signal.SIGTERM)
        _, error = server.communicate(timeout=30)
        assert (server.returncode, error) == (0, "")
        _, alive = psutil.wait_procs(children, timeout=5)
        assert alive == []
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=1):
            pass
    finally:
        server.kill()
        server.communicate()
