"""docs/how-to/receive-webhooks.md: its receivers take WebhookHook's messages once, and refuse all others."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from airflow_insightly_hooks.__main__ import main
from airflow_insightly_hooks.core.payload import build_body
from airflow_insightly_hooks.hooks import webhook
from airflow_insightly_hooks.hooks.webhook import PostResult, WebhookHook
from tests.conftest import Connect
from tests.how_to.pages import Page, commands
from tests.servers import answer, serving

PAGE = Page("receive-webhooks.md")
SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()
OLD_SECRET = "whsec_" + base64.b64encode(b"o" * 24).decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"x" * 24).decode()
PASSWORD = "pässword: of the receiver"
BODY = '{"entity":{"FIRST_NAME":"Zoë","TASK_ID":7}}'
SETTINGS = {
    "WEBHOOK_USER": "airflow",
    "WEBHOOK_PASSWORD": PASSWORD,
    "WEBHOOK_SECRETS": f"{OLD_SECRET} {SECRET}",
}
NODE = shutil.which("node")


def write_modules(folder: Path) -> None:
    """Write each Python block into the file that its first line names."""
    for kind, code in PAGE.blocks:
        if kind == "python":
            (folder / code.splitlines()[0].removeprefix("# ")).write_text(code, "utf-8")


class Receiver(NamedTuple):
    """A running receiver.

    :ivar stored: returns the stored messages by their ids.
    """

    url: str
    stored: Callable[[], dict[str, bytes]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def run_command(name: str, folder: Path) -> Iterator[Receiver]:
    """Start a receiver with the page's command, in a folder with the page's modules."""
    port = str(free_port())
    (command,) = commands(PAGE.block("bash", f"{name}_receiver").replace("8000", port))
    (folder / "inbox.db").unlink(missing_ok=True)
    outside = {key: value for key, value in os.environ.items() if not key.startswith("COV_")}
    log = folder / f"{name}.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env={**outside, **SETTINGS, "PYTHONPATH": str(folder)},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        ) as process,
    ):
        try:
            for _ in range(600):
                with closing(socket.socket()) as probe:
                    if probe.connect_ex(("127.0.0.1", int(port))) == 0:
                        break
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            yield Receiver(f"http://127.0.0.1:{port}/insightly", lambda: in_inbox(folder / "inbox.db"))
        finally:
            process.terminate()


def in_inbox(file: Path) -> dict[str, bytes]:
    if not file.exists():
        return {}
    with closing(sqlite3.connect(file)) as database:
        return dict(database.execute("SELECT message_id, body FROM inbox").fetchall())


class ClientError(Exception):
    """The error that botocore raises."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


class Table:
    """The part of a DynamoDB table (partition key ``message_id``) that the page's function needs."""

    def __init__(self) -> None:
        self.items: dict[str, bytes] = {}
        self.is_away = False

    def put_item(self, Item: dict[str, str], ConditionExpression: str) -> None:  # noqa: N803 — DynamoDB's names
        assert ConditionExpression == "attribute_not_exists(message_id)"
        if self.is_away:
            raise ClientError("ProvisionedThroughputExceededException")
        if Item["message_id"] in self.items:
            raise ClientError("ConditionalCheckFailedException")
        self.items[Item["message_id"]] = Item["body"].encode()


def function_url_event(headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """Return an event in payload format 2.0: names in lower case, JSON as text."""
    lowered = {name.lower(): value for name, value in headers.items()}
    return {"version": "2.0", "headers": lowered, "body": body.decode(), "isBase64Encoded": False}


def rest_api_event(headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """Return an event in payload format 1.0: names as they came, here with a body in base64."""
    encoded = base64.b64encode(body).decode()
    return {"version": "1.0", "headers": headers, "body": encoded, "isBase64Encoded": True}


class Gateway(ThreadingHTTPServer):
    """Passes requests to a function as events, as AWS does."""

    daemon_threads = True

    def __init__(self, function: Any, event: Any) -> None:
        super().__init__(("127.0.0.1", 0), GatewayRequest)
        self.function, self.event = function, event


class GatewayRequest(BaseHTTPRequestHandler):
    server: Gateway

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            answered = self.server.function(self.server.event(dict(self.headers), body), None)
        except Exception:  # as AWS answers for a function that fails
            answered = {"statusCode": 502}
        text = answered.get("body", "").encode()
        self.send_response(answered["statusCode"])
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def function(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, table: Table) -> Any:
    """Return the page's Lambda function, with a table of the tests."""
    write_modules(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    resource = SimpleNamespace(Table=lambda name: table)
    monkeypatch.setitem(sys.modules, "boto3", SimpleNamespace(resource=lambda name: resource))
    monkeypatch.setitem(sys.modules, "botocore", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "botocore.exceptions", SimpleNamespace(ClientError=ClientError))
    for name in ("check_webhook", "lambda_receiver"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield __import__("lambda_receiver").handler
    for name in ("check_webhook", "lambda_receiver"):
        sys.modules.pop(name, None)


@contextmanager
def run_gateway(function: Any, event: Any, table: Table) -> Iterator[Receiver]:
    with Gateway(function, event) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield Receiver(f"http://127.0.0.1:{server.server_port}/", lambda: table.items)
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("receivers")
    write_modules(folder)
    return folder


@pytest.fixture(scope="module")
def flask(modules: Path) -> Iterator[Receiver]:
    pytest.importorskip("flask")
    with run_command("flask", modules) as receiver:
        yield receiver


@pytest.fixture(scope="module")
def fastapi(modules: Path) -> Iterator[Receiver]:
    with run_command("fastapi", modules) as receiver:
        yield receiver


@pytest.fixture
def function_url(function: Any, table: Table) -> Iterator[Receiver]:
    with run_gateway(function, function_url_event, table) as receiver:
        yield receiver


@pytest.fixture
def rest_api(function: Any, table: Table) -> Iterator[Receiver]:
    with run_gateway(function, rest_api_event, table) as receiver:
        yield receiver


@pytest.fixture(params=["flask", "fastapi", "function_url", "rest_api"])
def receiver(request: pytest.FixtureRequest) -> Receiver:
    """Each of the page's receivers that run in Python."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def send(receiver: Receiver, connect: Connect) -> Callable[..., PostResult]:
    """POST to the receiver, with the right credentials unless others are given."""

    def post(
        message_id: str, body: str = BODY, password: str = PASSWORD, signing_secret: str | None = SECRET
    ) -> PostResult:
        extra = {"signing_secret": signing_secret} if signing_secret else {}
        connect("receiver", host=receiver.url, login="airflow", password=password, extra=extra)
        return WebhookHook("receiver").send(body, message_id=message_id)

    return post


def test_no_block_is_without_a_test() -> None:
    """The page holds the blocks that the tests below execute, and no other."""
    expected = {"": 2, "bash": 4, "python": 5, "javascript": 3}
    assert Counter(PAGE.kinds()) == expected


def test_a_message_is_kept_once(receiver: Receiver, send: Callable[..., PostResult]) -> None:
    """A good request and its repeat are acknowledged, and the exact body is stored once."""
    first, again, other = send("msg_once"), send("msg_once"), send("msg_other")
    assert [result.status for result in (first, again, other)] == [204, 204, 204]
    assert (first.acknowledged, again.acknowledged) == (True, True)
    assert receiver.stored()["msg_once"] == BODY.encode()
    assert {"msg_once", "msg_other"} <= receiver.stored().keys()


def test_the_secret_that_goes(receiver: Receiver, send: Callable[..., PostResult]) -> None:
    """While a secret is being replaced, messages signed with the old one are accepted, too."""
    assert send("msg_rotated", signing_secret=OLD_SECRET).acknowledged
    assert "msg_rotated" in receiver.stored()


@pytest.mark.parametrize(
    "wrong",
    [{"password": "guessed"}, {"signing_secret": OTHER_SECRET}, {"signing_secret": None}],
    ids=["password", "signature", "unsigned"],
)
def test_what_is_wrong_is_refused(
    receiver: Receiver, send: Callable[..., PostResult], wrong: dict[str, Any]
) -> None:
    """A wrong password and a wrong or missing signature get 401, and nothing is stored."""
    result = send("msg_wrong", **wrong)
    assert (result.acknowledged, result.status) == (False, 401)
    assert "msg_wrong" not in receiver.stored()


def test_an_old_request_is_refused(
    receiver: Receiver, send: Callable[..., PostResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that was signed ten minutes ago gets 401. A request of four minutes ago is accepted."""
    clock = SimpleNamespace(monotonic=time.monotonic, time=lambda: time.time() - 600)
    monkeypatch.setattr(webhook, "time", clock)
    assert send("msg_old").status == 401
    clock.time = lambda: time.time() - 240
    assert send("msg_late").acknowledged
    assert "msg_old" not in receiver.stored()


def test_a_large_body_is_refused(receiver: Receiver, send: Callable[..., PostResult]) -> None:
    """More than 1,000,000 bytes get 413."""
    body = build_body({"TASK_ID": 7, "DETAILS": "x" * 1_000_000}, record_type="Tasks")
    assert send("msg_large", body=body).status == 413
    assert "msg_large" not in receiver.stored()


def test_a_table_that_is_away(function_url: Receiver, table: Table, connect: Connect) -> None:
    """A message that could not be stored is not acknowledged."""
    table.is_away = True
    extra = {"signing_secret": SECRET}
    connect("receiver", host=function_url.url, login="airflow", password=PASSWORD, extra=extra)
    result = WebhookHook("receiver").send(BODY, message_id="msg_1")
    assert (result.acknowledged, result.status) == (False, 502)


def test_the_command_that_tries_it(
    fastapi: Receiver, connect: Connect, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``send-test`` prints the page's lines, and the receiver has the made-up contact."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    extra = {"signing_secret": SECRET}
    connect("billing_webhook", host=fastapi.url, login="airflow", password=PASSWORD, extra=extra)
    (command,) = commands(PAGE.block("bash", "send-test billing"))
    assert command[:2] == ["airflow", "insightly"]
    with pytest.raises(SystemExit) as ended:
        main(command[2:])
    assert ended.value.code == 0
    shown = capfd.readouterr()
    assert shape(shown.err + shown.out) == shape(
        PAGE.block("", "POST https").replace("https://billing.example.com/insightly", fastapi.url)
    )
    (message_id,) = set(re.findall(r"msg_test_\w+", shown.out))
    assert json.loads(fastapi.stored()[message_id])["entity"]["FIRST_NAME"] == "Test first name"


def shape(text: str) -> str:
    """Return the output of commands without the parts that differ each time."""
    return re.sub(r"\d\.\d+ s", "N s", re.sub(r"msg_test_\w+", "ID", text))


def test_the_connection_of_the_page_can_be_used(connect: Connect) -> None:
    """The hook can read the connection of the page's command, and its secret signs."""
    (command,) = commands(PAGE.block("bash", "airflow connections add"))
    options = dict(zip(command[4::2], command[5::2], strict=True))
    connect(
        command[3],
        options["--conn-type"],
        host=options["--conn-host"],
        login=options["--conn-login"],
        password=options["--conn-password"],
        extra=json.loads(options["--conn-extra"]),
    )
    shown = WebhookHook(command[3]).shown_headers("{}", message_id="msg_1")
    assert {"webhook-id", "webhook-timestamp", "webhook-signature"} <= shown.keys()


# --- the JavaScript blocks -------------------------------------------------------------------------------


@pytest.fixture
def signed(connect: Connect) -> dict[str, str]:
    """Return the headers of a request that WebhookHook has made."""
    with serving([answer()]) as server:
        connect("receiver", host=server.url, extra={"signing_secret": SECRET})
        assert WebhookHook("receiver").send(BODY, message_id="msg_1").acknowledged
    assert server.requests[0].body == BODY.encode()
    return server.requests[0].headers


def javascript(product: str, headers: dict[str, str], body: str, secret: str = SECRET) -> Any:
    """Run a product's block after ``verify``, as the product does. Return its result."""
    if NODE is None:
        pytest.skip("Node.js is not installed: the JavaScript of the page is not run")
    code = PAGE.block("javascript", "// verify") + re.sub(
        r"whsec_\w+", secret, PAGE.block("javascript", f"// {product}")
    )
    names = {"id": "webhook-id", "timestamp": "webhook-timestamp", "signature": "webhook-signature"}
    mapped = {name: headers.get(header, "") for name, header in names.items()}
    script = f"""
        const body = {json.dumps(body)};
        const inputData = {{...{json.dumps(mapped)}, body}};
        const item = {{json: {{headers: {json.dumps(headers)}}}}};
        const $input = {{first: () => item}};
        const helpers = {{getBinaryDataBuffer: async (index, name) => name === "data" && Buffer.from(body)}};
        async function step() {{ {code} }}
        step.call({{helpers}}).then(
            (returned) => console.log(JSON.stringify(returned)),
            (error) => {{ console.error(error.message); process.exit(1); }},
        );
    """
    done = subprocess.run([NODE, "-e", script], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr.strip()


@pytest.mark.slow
@pytest.mark.parametrize("product", ["Zapier", "n8n"])
def test_javascript(product: str, signed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A good request gives its fields; another secret, body, id or age is an error."""
    record = {"message_id": "msg_1", "FIRST_NAME": "Zoë", "TASK_ID": 7}
    assert javascript(product, signed, BODY) == (record if product == "Zapier" else [{"json": record}])
    for headers, body, secret in (
        (signed, BODY, OTHER_SECRET),
        (signed, BODY.replace("7", "8"), SECRET),
        (signed | {"webhook-id": "msg_2"}, BODY, SECRET),
        ({"webhook-id": "msg_1"}, BODY, SECRET),
    ):
        assert javascript(product, headers, body, secret) == "wrong signature"
    old = str(int(signed["webhook-timestamp"]) - 600)
    signature = Webhook(SECRET).sign("msg_1", datetime.fromtimestamp(int(old), timezone.utc), BODY)
    sent_again = {"webhook-id": "msg_1", "webhook-timestamp": old, "webhook-signature": signature}
    assert javascript(product, sent_again, BODY) == "too old"


def test_the_request_of_the_page() -> None:
    """Its signature is that of its body, by the secret of the page's connection."""
    head, body = PAGE.block("", "POST /insightly HTTP/1.1").strip().split("\n\n")
    headers = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    (secret,) = set(re.findall(r"whsec_\w{10,}", PAGE.text))
    sent_at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), timezone.utc)
    assert Webhook(secret).sign(headers["webhook-id"], sent_at, body) == headers["webhook-signature"]


@pytest.mark.slow
def test_the_library_agrees(signed: dict[str, str]) -> None:
    """``standardwebhooks`` accepts the same requests."""
    assert Webhook(SECRET).verify(BODY, signed) == json.loads(BODY)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER_SECRET).verify(BODY, signed)
