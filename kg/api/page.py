"""The page of the API, made from its OpenAPI description; it loads nothing from elsewhere, so it works offline."""

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
details { border: 1px solid #ccc; border-radius: 6px; margin: .5rem 0; padding: .5rem 1rem }
summary { cursor: pointer } code, textarea, pre, input { font: 14px/1.4 ui-monospace, monospace }
.method { display: inline-block; width: 4rem; font-weight: bold } label { display: block; margin: .4rem 0 }
textarea { width: 100%; height: 7rem } pre { background: #f4f4f4; padding: .5rem; overflow: auto; max-height: 24rem }
"""
_SCRIPT = """
for (const form of document.querySelectorAll("form[data-path]")) form.addEventListener("submit", async event => {
  event.preventDefault();
  const query = new URLSearchParams();
  let path = form.dataset.path;
  for (const input of form.querySelectorAll("input")) {
    if (input.dataset.in === "path") path = path.replace(`{${input.name}}`, encodeURIComponent(input.value));
    else if (input.value) query.set(input.name, input.value);
  }
  const token = document.getElementById("token").value;
  const headers = token ? {Authorization: `Bearer ${token}`} : {};
  const body = form.querySelector("textarea");
  if (body) headers["Content-Type"] = "application/json";
  const output = form.querySelector("pre");
  try {
    const answer = await fetch(path.slice(1) + (query.size ? `?${query}` : ""),
      {method: form.dataset.method, headers, body: body ? body.value : undefined});
    const text = await answer.text();
    output.textContent = `${answer.status}\\n${text.startsWith("{") || text.startsWith("[")
      ? JSON.stringify(JSON.parse(text), null, 2) : text}`;
  } catch (error) { output.textContent = String(error); }
});
"""


def _csp_hash(code: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": f"default-src 'none'; style-src {_csp_hash(_STYLE)}; script-src {_csp_hash(_SCRIPT)}; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


def api_page(openapi: Mapping[str, Any]) -> str:
    """HTML that lists every route of an OpenAPI description, each with a form that tries it."""
    routes = "".join(
        _route(path, method, operation, openapi)
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
    )
    title = escape(openapi["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title} API</title><style>{_STYLE}</style>'
        f"<h1>{title} API</h1><p>The same as data: <a href='openapi.json'>openapi.json</a>. "
        "Offsets count Unicode code points unless <code>offset_unit</code> says otherwise.</p>"
        '<label>Token, where the server asks for one <input id="token" type="password" autocomplete="off"></label>'
        f"{routes}<script>{_SCRIPT}</script></html>"
    )


def _route(path: str, method: str, operation: Mapping[str, Any], openapi: Mapping[str, Any]) -> str:
    fields = "".join(
        f"<label>{escape(one['name'])}{'' if one.get('required') else ' (optional)'} "
        f'<input name="{escape(one["name"])}" data-in="{escape(one["in"])}"></label>'
        for one in operation.get("parameters", [])
    )
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    body = f"<label>Body <textarea>{escape(_example(content['schema'], openapi))}</textarea></label>" if content else ""
    return (
        f'<details><summary><span class="method">{escape(method.upper())}</span><code>{escape(path)}</code> '
        f"{escape(operation.get('summary', ''))}</summary><p>{escape(operation.get('description', ''))}</p>"
        f'<form data-method="{escape(method.upper())}" data-path="{escape(path)}">{fields}{body}'
        f"<button>Try it</button><pre></pre></form><p>Answer: {_answer(operation)}</p></details>"
    )


def _example(schema: Mapping[str, Any], openapi: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        schema = openapi["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return json.dumps((schema.get("examples") or [{}])[0], indent=2, ensure_ascii=False)


def _answer(operation: Mapping[str, Any]) -> str:
    schema = (
        operation.get("responses", {}).get("200", {}).get("content", {}).get("application/json", {}).get("schema", {})
    )
    name = schema.get("$ref") or schema.get("items", {}).get("$ref", "")
    return f"<code>{escape(name.rsplit('/', 1)[-1])}{'[]' if schema.get('type') == 'array' else ''}</code>"
