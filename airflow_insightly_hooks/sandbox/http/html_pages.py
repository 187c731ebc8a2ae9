"""The sandbox's pages for people. All values are escaped. The pages load nothing and run no script."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from itertools import islice

from starlette.responses import HTMLResponse

from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.sandbox.http.request_bin import ReceivedRequest, RequestBin

__all__ = ["bin_page", "html_response", "index_page"]

MAX_SHOWN_REQUESTS = 100
REFRESH = 3
"""Seconds between two refreshes of a bin's page."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
body { color: #1d2733; }
h1 { font-size: 1.4rem; } h1 small { font-weight: normal; color: #5b6775; }
article { border: 1px solid #d5dbe1; border-radius: 6px; margin: 1rem 0; padding: .6rem 1rem; }
header { display: flex; gap: 1rem; flex-wrap: wrap; align-items: baseline; }
.status { font-weight: bold; padding: 0 .5rem; border-radius: 4px; background: #d9f2e1; color: #115c2c; }
.refused { background: #fbdcdc; color: #8f1414; }
pre { background: #f5f7f9; padding: .6rem; border-radius: 4px; overflow-x: auto; white-space: pre-wrap; }
table { border-collapse: collapse; } td { word-break: break-all; }
th { text-align: left; font-weight: normal; padding-right: 1rem; } th, summary, .quiet { color: #5b6775; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def html_response(page: str) -> HTMLResponse:
    """Return a page, with security headers such as a content security policy."""
    return HTMLResponse(page, headers=_HEADERS)


def index_page(base_url: str, bins: Mapping[str, RequestBin]) -> str:
    """Return the page at ``/``, which explains the sandbox and lists the bins.

    :param base_url: the sandbox's URL, without a slash at the end.
    """
    api = f"{base_url}/v3.1"
    lines = {
        "Contacts updated since a time": (
            f"curl -u sandbox-key: '{api}/Contacts/Search?updated_after_utc=2024-01-01T00:00:00Z&top=5'"
        ),
        "Play the CRM user: create, change and delete a record": (
            f'curl -u sandbox-key: {api}/Contacts -d \'{{"FIRST_NAME": "Zoë"}}\'\n'
            f'curl -u sandbox-key: {api}/Tasks -X PUT -d \'{{"TASK_ID": 99922875, "PRIORITY": 3}}\'\n'
            f"curl -u sandbox-key: {api}/Tasks/99922875 -X DELETE"
        ),
        "A request bin: send something to it, look at it in a browser, make it fail twice": (
            f"curl {base_url}/bin/billing -d '{{\"entity\": {{}}}}'\n"
            f"curl {base_url}/bin/billing/requests\n"
            f'curl -X PUT {base_url}/bin/billing -d \'{{"status": 503, "times": 2}}\''
        ),
        "The sandbox itself: its requests, clock, faults and limits": (
            f"curl {base_url}/_sandbox\n"
            f"curl -X PUT {base_url}/_sandbox -d '{{\"clock_offset\": 3600}}'\n"
            f"curl -X DELETE {base_url}/_sandbox"
        ),
    }
    shown = "".join(f"<h2>{escape(title)}</h2><pre>{escape(text)}</pre>" for title, text in lines.items())
    listed = "".join(
        f'<li><a href="/bin/{escape(name)}">{escape(name)}</a>: {counted(len(one.requests), "request")}</li>'
        for name, one in sorted(bins.items())
    )
    return _page(
        "Insightly sandbox",
        "<h1>Insightly sandbox</h1><p>A stand-in for Insightly's REST API v3.1, with made-up records in "
        "memory, and request bins. The API key is <code>sandbox-key</code>.</p>"
        f"{shown}<h2>Bins</h2>" + (f"<ul>{listed}</ul>" if listed else "<p>None yet.</p>"),
    )


def bin_page(name: str, request_bin: RequestBin) -> str:
    """Return the page of a bin, the newest request first."""
    kept = request_bin.requests
    shown = "".join(_article(one) for one in islice(reversed(kept), MAX_SHOWN_REQUESTS))
    older = len(kept) - MAX_SHOWN_REQUESTS
    more = f'<p class="quiet">The JSON also has {counted(older, "older request")}.</p>' if older > 0 else ""
    return _page(
        f"{name} ({len(kept)})",
        f"<h1>{escape(name)} <small>{counted(len(kept), 'request')} · "
        f'<a href="/bin/{escape(name)}/requests">JSON</a> · <a href="/">about</a></small></h1>'
        + (shown or "<p>No request yet.</p>")
        + more,
        refresh=True,
    )


def _article(kept: ReceivedRequest) -> str:
    refused = "" if 200 <= kept.acknowledged_with < 300 else " refused"
    prominent_headers = {
        name: value for name, value in kept.headers.items() if name.startswith(("webhook-", "x-"))
    }
    other_headers = {name: value for name, value in kept.headers.items() if name not in prominent_headers}
    return (
        f"<article><header><time>{escape(kept.received_at)}</time>"
        f'<span class="status{refused}">{kept.acknowledged_with}</span>'
        f"<span>{'user ' + escape(kept.username) if kept.username else 'no user name'}</span></header>"
        f"{_table(prominent_headers)}<pre>{escape(_pretty(kept.body))}</pre>"
        f"<details><summary>{counted(len(other_headers), 'more header')}</summary>"
        f"{_table(other_headers)}</details>"
        "</article>"
    )


def _table(headers: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in headers.items()
    )
    return f"<table>{rows}</table>" if rows else ""


def _pretty(body: str) -> str:
    """Return a JSON body with line breaks, or any other body as it is."""
    try:
        pretty = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
        pretty.encode()
    except (ValueError, RecursionError):
        return body
    return pretty


def _page(title: str, body: str, *, refresh: bool = False) -> str:
    again = f'<meta http-equiv="refresh" content="{REFRESH}">' if refresh else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>{again}'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body>{body}</body></html>"
    )
