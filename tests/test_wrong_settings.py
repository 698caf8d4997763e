"""No setting of either service takes what cannot be meant. A new setting is tried here by itself."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import BaseSettings, NoDecode

from audit_svc.settings import AuditSettings, WitnessesFile
from gateway_svc.engines.kinds import EngineKind, engine_kinds
from gateway_svc.settings import GatewaySettings, RulesFile, split_policies
from gateway_svc.tools.jail.sandbox import JailSettings
from gateway_svc.tools.kinds import kinds
from gateway_svc.tools.web.destination import check_allowed
from gateway_svc.turns.budgets import LabelBudget
from intake_svc.settings import IntakeSettings
from service_kit import setting_types as st
from service_kit.access.guard import CallersFile
from service_kit.access.roles import check_name
from service_kit.producing.settings import check_log_key
from service_kit.settings import check_disk, load_settings, variable_of
from tests.support.certificates import Authority

CLASSES: list[type[BaseSettings]] = [
    AuditSettings,
    GatewaySettings,
    IntakeSettings,
    JailSettings,
    *(kind.settings for kind in engine_kinds()),
    *(kind.settings for kind in kinds().values()),
]
HTTP_ENGINES = [f"GATEWAY_{kind.name.upper()}" for kind in engine_kinds() if isinstance(kind, EngineKind)]
TLS_PREFIXES = ("AUDIT", "GATEWAY", "GATEWAY_AUDIT", "INTAKE", "INTAKE_AUDIT", "INTAKE_STOPS")
RIGHT = {
    "GATEWAY_OLLAMA_MODEL": "m",
    "GATEWAY_STATE_DIR": "{tmp}/state",
    "GATEWAY_OLLAMA_URL": "https://127.0.0.1:9",
    **{f"{engine}_CLIENT_CERT": "{tmp}/server.crt" for engine in HTTP_ENGINES},
    **{f"{engine}_CLIENT_KEY": "{tmp}/server.key" for engine in HTTP_ENGINES},
    **{f"{prefix}_TLS_CERT": "{tmp}/server.crt" for prefix in TLS_PREFIXES},
    **{f"{prefix}_TLS_KEY": "{tmp}/server.key" for prefix in TLS_PREFIXES},
    "AUDIT_TOKENS_FILE": "{tmp}/callers",
    "GATEWAY_TOKENS_FILE": "{tmp}/callers",
    "GATEWAY_AUDIT_TLS_CA": "{tmp}/ca.pem",
    "INTAKE_STATE_DIR": "{tmp}/intake",
    "INTAKE_TOKENS_FILE": "{tmp}/callers",
    "INTAKE_AUDIT_TLS_CA": "{tmp}/ca.pem",
    "INTAKE_STOPS_TLS_CA": "{tmp}/ca.pem",
    "INTAKE_AUDIT_TOKEN_FILE": "{tmp}/token",
    "GATEWAY_AUDIT_TOKEN_FILE": "{tmp}/token",
    "AUDIT_SEAL_TIMESTAMP_URL": "https://127.0.0.1:9",
    "AUDIT_SEAL_TIMESTAMP_CA": "{tmp}/ca.pem",
}
"""Settings that need one another, which are right."""
PLANTED = "hunter2hunter2"

NO_NUMBER = ("many", "1 5", "0x10", "--1", "1 000", "10s", "½", "nan", "inf", "-inf", "1e400", "10" * 30, "-1", "true")
NO_LINE = (" ", "\t", " m", "m ", "m\n", "a\nb", "m\r", "\x07", "m\x1b[2J", "a\u2028b", "a\u202eb", "m\x7f", "m" * 5000)
NO_PORT = ("host", ":1", "host:", "host:port", "host:-1", "host:70000", "host:1 ", " host:1", "a b:1", "http://host:1")
NO_ADDRESS = (*NO_PORT, "1.2.3:1", "1.2.3.400:1", "::1:1", "[::1:1", "[::g]:1", "host\n:1", "a..b:1", "host:٣", "unix:")
NO_PATH = ("~nobody-here/x", "{tmp}/file/below", "{tmp}/" + "x" * 300)
NO_FILE = (*NO_PATH, "{tmp}", "{tmp}/none", "{tmp}/fifo", "{tmp}/anybody", "/dev/null", "x", "..")
NO_CONTENT = (*NO_FILE, "{tmp}/file", "{tmp}/empty")

WRONG: dict[object, tuple[str, ...]] = {
    int: (*NO_NUMBER, "1.5", "1e30"),
    float: (*NO_NUMBER, "1e20", "1..5"),
    bool: ("maybe", "2", "-1", "10", "yess", "tru", "null", "None", "o n", "1.5", "✓", "truefalse"),
    Literal: ("maybe", "-1", "none", "null", "*", "all", "True!", "0.5", "a,b", "ALLOW!", "off ", "è"),
    st.check_text: NO_LINE,
    st.check_secret: (*NO_LINE[:-1], f"{PLANTED} ", f"{PLANTED}\n", f"{PLANTED} x", f"{PLANTED}é"),
    st.check_url: (
        *("nonsense", "127.0.0.1:1", "ftp://h", "http://", "http:///x", "http://a b/", "http://h:x", "http://h:99999"),
        *("http://h:0", "http://[::1", "http://h\n/x", "http://h/ ", " http://h", "http://1.2.3", f"u:{PLANTED}@h"),
        *(f"http://u:{PLANTED}@h:x", f"http://h:x/?key={PLANTED}", "http://a..b", "http://é" + "x" * 70),
    ),
    st.check_database_url: (
        *(
            "nonsense",
            "127.0.0.1:5432",
            "http://h/x",
            "postgres:h",
            "postgresql:/h/x",
            "mysql://h/x",
            " postgresql://h/x",
        ),
        *(
            f"postgresql://u:{PLANTED}@h/x y",
            f"postgresql://u:{PLANTED}@h/x\n",
            f"u:{PLANTED}@h/x",
            f"dbname={PLANTED}",
        ),
    ),
    st.check_listen_address: NO_ADDRESS,
    st.check_metrics_address: (*NO_ADDRESS, "unix:/x"),
    st.check_socket_path: ("x", "./x", "..", ".", "unix:/x", "~nobody-here/x", "/" + "x" * 200, "127.0.0.1:1"),
    st.check_target: (*NO_ADDRESS, "nonsense", "host:0", "dns:///host", "dns://host:1", "ipv4:1.2.3.4", "xds:///x"),
    st.check_command: (*NO_LINE, "'x", 'x "y', "x\\", "''"),
    check_log_key: (
        *NO_LINE,
        "key",
        "a+b",
        "name+0000000+AVpz",
        "name+00000000+AVpz",
        "a b+1a2b3c4d+AVpz",
        "{tmp}/file",
    ),
    st.file_or_database: (
        *("mysql://h/d", "http://h/d", "postgres:///a b", "postgresql://h/d\n", "x postgresql://h/d", "://"),
        f"mysql://u:{PLANTED}@h/d",
    ),
    check_name: (*NO_LINE, "a/b", "-a", ".a", "a b", "ä", "x" * 65),
    check_allowed: ("http://x", "a/b", "host:port", "host:0", "host:70000", "a b", "[:::1]", "x@y", "a,b c", "*"),
    split_policies: (",", "read=maybe", "read=", "read=allow=deny", "read,read", "read,read=ask", "=ask", "re\nad"),
    st.split_commas: (",", " , ", ",,", "\t,", " ", " ,,"),
    st.Folder: (*NO_PATH, "{tmp}/file", "{tmp}/fifo", "{tmp}/fifo/x/y", "/dev/null", "/dev/null/x", "~nobody-here"),
    st.NewFile: (*NO_PATH, "{tmp}", "/", "/dev/null/x", ".", "..", "{tmp}/fifo/x"),
    st.ReadableFile: NO_FILE,
    st.CertificateFile: (*NO_CONTENT, "{tmp}/words"),
    st.KeyFile: (*NO_CONTENT, "{tmp}/words", PLANTED, f"x/{PLANTED}", f"/{PLANTED}/{PLANTED}"),
    st.KeysFile: (*NO_CONTENT, "{tmp}/words", PLANTED, f"x/{PLANTED}", "{tmp}/short-key"),
    st.TokenFile: (*(p for p in NO_CONTENT if p != "{tmp}/file"), "{tmp}/words", PLANTED, f"x/{PLANTED}"),
    CallersFile: (*NO_CONTENT, "{tmp}/words", "{tmp}/nobody"),
    WitnessesFile: (*NO_CONTENT, "{tmp}/words", "{tmp}/callers"),
    RulesFile: (*NO_CONTENT, "{tmp}/words", "{tmp}/callers"),
    st.PathList: ("~nobody-here/x", "{tmp}/none", "x", "..", "{tmp},{tmp}/none", "/nowhere", ".", "~nobody-here"),
    LabelBudget: ("team", "team=x", "team=x:-1", "=x:1", "team=:1", "team=x:1/year", "x:1", "a=b:1,c", "a=b:1.5", ":"),
}
"""By a type, a check, or whatever else makes out the type of a setting: values that it must refuse."""


def marks_of(*parts: Any) -> Iterator[Any]:
    """What makes out the type of a setting: its types, checks and marks, down to those of its items."""
    for part in parts:
        yield from marks_of(*getattr(part, "metadata", ()), *getattr(part, "__metadata__", ()), *get_args(part))
        if isinstance(part, AfterValidator | BeforeValidator):
            yield part.func
        else:
            yield get_origin(part) if get_origin(part) is Literal else part


def on_disk(key: Any) -> Any:
    """What marks settings of a type that names something on this machine; any other key as it is."""
    return next((mark for mark in marks_of(key) if isinstance(mark, st.OnDisk)), key)


def wrong_values(cls: type[BaseSettings]) -> dict[str, list[str]]:
    """By variable: what it must refuse. None of a setting whose type this file knows nothing of."""
    table = {on_disk(key): values for key, values in WRONG.items()}
    found: dict[str, list[str]] = {}
    for name, field in cls.model_fields.items():
        marks = list(marks_of(*field.metadata, field.annotation))
        known = [mark for mark in marks if getattr(mark, "__hash__", None) and mark in table]
        if NoDecode in marks:  # a list: an item's policy stands behind its name, blanks around an item are allowed
            wrong = [v for mark in known if mark is not Literal for v in table[mark] if v == v.strip()] + [","]
        else:
            wrong = [value for mark in known for value in table[mark] if value not in get_args(field.annotation)]
        found[variable_of(cls, name)] = wrong
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of all sorts."""
    folder = tmp_path_factory.mktemp("files")
    table = f'[[callers]]\nname = "ada"\nroles = ["admin"]\nsha256 = "{"0" * 64}"\n'
    texts = {"file": "a\nb", "empty": "", "words": "no token", "nobody": "callers = []", "token": "t", "callers": table}
    texts["short-key"] = f"a {'0' * 63}\n"
    for name, content in texts.items():
        (folder / name).write_text(content, "utf-8")
    os.mkfifo(folder / "fifo")
    (folder / "anybody").write_text("token", "utf-8")
    (folder / "anybody").chmod(0o606)
    Authority(folder).server()
    return folder


@pytest.mark.long
@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls.model_fields])
def test_a_wrong_value_is_refused_in_one_line_that_names_the_variable(cls, files, tmp_path, monkeypatch, capsys):
    """Many variables are wrong at once. Those that only the disk can tell to be wrong are tried without the others."""

    def refused(wrong: dict[str, str]) -> list[str]:
        with monkeypatch.context() as patch:
            for variable, value in wrong.items():  # of variables that name one path the first is told
                patch.setenv(variable, value.replace("{tmp}", str(links / variable)))
            with pytest.raises(SystemExit) as ended:  # noqa: PT012 - either of the two may refuse it
                check_disk(load_settings(cls))
                pytest.fail(f"{wrong} is taken")
        lines: list[str] = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2, wrong
        assert not [line for line in lines if PLANTED in line], wrong
        return lines

    for variable, value in RIGHT.items():
        monkeypatch.setenv(variable, value.replace("{tmp}", str(files)))
    check_disk(load_settings(cls))
    values = wrong_values(cls)
    links = tmp_path
    for variable in values:
        (links / variable).symlink_to(files)
    unknown = [variable for variable, wrong in values.items() if len(wrong) < 6]
    assert not unknown, "use a type of service_kit.setting_types, or add the new type's wrong values here"
    for number in range(max(map(len, values.values()))):
        left = {variable: of_it[number] for variable, of_it in values.items() if number < len(of_it)}
        while left:
            told = Counter(line.split(": ")[0] for line in refused(left))
            assert told, left
            assert told.keys() <= left.keys(), left
            assert set(told.values()) == {1}, left
            left = {variable: left[variable] for variable in left.keys() - told.keys()}
