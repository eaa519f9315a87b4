"""Nothing misspelt passes: what a name may have meant is said, and what belongs to other programs stands in no way."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.test_configuration import BAD_SECRETS, BAD_SETTINGS
from tests.e2e.test_key_configuration import ALL as BAD_KEYS
from tests.e2e.test_key_configuration import P256, pem
from tests.support.clients import Raw, message
from tests.support.harness import SECRET, StartProxy, rows, verify
from tests.support.mistakes import Mistake, RunLauncher, Start, check
from tests.support.upstreams import Recorder

# --- near misses: each is an error, and names what was meant

VARIABLES = dict(
    word.split(":")
    for word in """
    JWT_USR:JWT_USER JWT_USERS:JWT_USER JWT_UESR:JWT_USER jwt_user:JWT_USER JWT_TTLS:JWT_TTL JWT_TLL:JWT_TTL
    JWT_AUDIANCE:JWT_AUDIENCE JWT_AUDIENCES:JWT_AUDIENCE JWT_ISUER:JWT_ISSUER JWT_SUBJET:JWT_SUBJECT
    JWT_CLAIM:JWT_CLAIMS JWT_TYPE:JWT_TYP JWT_HEADERS:JWT_HEADER JWT_HAEDER:JWT_HEADER JWT_ALGORYTHM:JWT_ALGORITHM
    JWT_ALGORITM:JWT_ALGORITHM JWT_KEYFILE:JWT_KEY_FILE JWT_KEY_FILES:JWT_KEY_FILE JWT_KEYDIR:JWT_KEY_DIR
    JWT_KEY_PASSPHRAZE:JWT_KEY_PASSPHRASE JWT_SHARED_SECRETS:JWT_SHARED_SECRET JWT_SHARDSECRET:JWT_SHARED_SECRET
    JWT_SHARED_SECRETFILE:JWT_SHARED_SECRET_FILE JWT_RULE:JWT_RULES JWT_PAGE:JWT_PAGES JWT_TRACES:JWT_TRACE
    JWT_FASTLANE:JWT_FAST_LANE JWT_ALLOW_CLIENTS:JWT_ALLOW_CLIENT JWT_ALLOWED_PORT:JWT_ALLOW_PORT
    JWT_DENY_PRIVAT:JWT_DENY_PRIVATE JWT_CONECT_TIMEOUT:JWT_CONNECT_TIMEOUT JWT_IDLE_TIME_OUT:JWT_IDLE_TIMEOUT
    JWT_JWKS_MAXAGE:JWT_JWKS_MAX_AGE JWT_MAX_HEADS:JWT_MAX_HEAD JWT_STRICTENV:JWT_STRICT_ENV JWT-TTL:JWT_TTL
    """.split()
)
OPTIONS = dict(
    word.split(":")
    for word in """
    jwt-ttl:jwt_ttl jwt_tll:jwt_ttl jwt_usr:jwt_user JWT_USER:jwt_user user:jwt_user username:jwt_user ttl:jwt_ttl
    exp:jwt_ttl jwt_exp:jwt_ttl jwt_aud:jwt_audience audience:jwt_audience jwt_alg:jwt_algorithm jwt_key:jwt_key_file
    jwt_private_key:jwt_key_file jwt_keydir:jwt_key_dir jwt_fastlane:jwt_fast_lane jwt_header_name:jwt_header
    jwt_connect:jwt_connect_timeout listen-port:listen_port listenhost:listen_host modes:mode ignore_host:ignore_hosts
    """.split()
)
NO_OPTIONS = ("foo", "jwt_x", "jwt_", "web_port", "=")


def near_misses() -> dict[str, Mistake]:
    """Each in one of the places where it can be made."""
    found = {}
    for name, meant in VARIABLES.items():
        says, hint = f"unknown variable {name}", f"did you mean {meant}?"
        found[f"variable-{name}"] = Mistake(says, env={name: "x"}, hint=hint)
    for name in list(VARIABLES)[::5]:
        says, hint = f"unknown variable {name} in .env", f"did you mean {VARIABLES[name]}?"
        found[f".env-{name}"] = Mistake(says, files={".env": f"{name}=x\n"}, hint=hint)
    for name, meant in OPTIONS.items():
        says, hint = f"unknown option {name!r}", f"did you mean {meant}?"
        found[f"set-{name}"] = Mistake(says, ["--set", f"{name}=x"], hint=hint)
        if name.lower().startswith("jwt"):
            files = {".mitmproxy/config.yaml": f"{name}: x\n"}
            found[f"config-{name}"] = Mistake(says, files=files, hint=hint)
    return found


NEAR = near_misses()
SOME_NEAR = list(NEAR)[::6]

OTHERS = {
    **{f"set-{name}": Mistake(f"unknown option {name.partition('=')[0]!r}", ["--set", name]) for name in NO_OPTIONS},
    "no-value": Mistake("jwt_ttl has no value", ["--set", "jwt_ttl"], hint="--set jwt_ttl=…"),
    "secret-as-option": Mistake(
        "unknown option 'jwt-shared-secret'",
        ["--set", f"jwt-shared-secret={SECRET}"],
        hint="set the variable JWT_SHARED_SECRET",
    ),
    "strict-word": Mistake("unknown variable JWT_EXP", env={"JWT_EXP": "60", "JWT_STRICT_ENV": "1"}, hint="JWT_TTL"),
    "strict-stranger": Mistake(
        "unknown variable JWT_COOKIE_SECURE",
        env={"JWT_COOKIE_SECURE": "1", "JWT_STRICT_ENV": "on"},
        hint="env -u JWT_COOKIE_SECURE",
    ),
    "strict-port": Mistake("unknown variable HTTPPORT", env={"HTTPPORT": "1", "JWT_STRICT_ENV": "1"}, hint="HTTP_PORT"),
    "strict-.env": Mistake(
        "unknown variable WORKER in .env", files={".env": "WORKER=2\nJWT_STRICT_ENV=1\n"}, hint="WORKERS"
    ),
    "strict-maybe": Mistake("bad value 'maybe' for JWT_STRICT_ENV", env={"JWT_STRICT_ENV": "maybe"}, hint="1 or 0"),
    "script-has-another": Mistake(
        "unknown option 'min'",
        ["-s", "mine.py", "--set", "min=1"],
        files={"mine.py": "def load(loader):\n    loader.add_option('mine', str, '', 'Of a script.')\n"},
        hint="did you mean mine?",
    ),
    **{
        f"script-has-no-such-value-{how}": Mistake(
            "failed to parse option mine: not an integer: x",
            ["-s", "mine.py", "--set", "mine=x", *flags],
            files={"mine.py": "def load(loader):\n    loader.add_option('mine', int, 0, 'Of a script.')\n"},
            hint="--options",
        )
        for how, flags in (("serve", ()), ("check", ("--check",)), ("options", ("--options",)))
    },
    "script-cannot-have-ours": Mistake(
        "unknown option 'jwt_mine'",
        ["-s", "mine.py", "--set", "jwt_mine=1"],
        files={"mine.py": "def load(loader):\n    loader.add_option('jwt_mine', str, '', 'Of a script.')\n"},
    ),
    "json-alone": Mistake("--json without --check", ["--json"], hint="--check --json"),
    "audience-comma": Mistake("'a,' for jwt_audience", ["--set", "jwt_audience=a,"], hint="comma"),
    "audience-json": Mistake("'[1]' for jwt_audience", env={"JWT_AUDIENCE": "[1]"}, hint="JSON list"),
}

# --- no key, or one in another form

BASE64 = b64encode(b"+/" + bytes(range(60, 122))).decode()


def instead(name: str, meant: str) -> Mistake:
    """A variable that nearly names the key."""
    return Mistake(
        f"JWT_SHARED_SECRET is not set, but {name} is", env={name: SECRET}, secret=None, hint=f"did you mean {meant}?"
    )


def forms() -> dict[str, Mistake]:
    """A shared secret in another form, in the variable and in its file."""
    found = {}
    for name, text, kind, hint in (
        ("quoted", f'"{SECRET}"', "is in quotes", "remove them"),
        ("single-quoted", f"'{SECRET}'", "is in quotes", "remove them"),
        ("base64", BASE64, "looks like base64", "base64 -d | od -An -vtx1"),
        ("base64url", BASE64.rstrip("=").replace("+", "-").replace("/", "_"), "looks like base64", "base64 -d"),
        ("pem", pem(P256), "holds a key in PEM form", "JWT_KEY_FILE"),
        ("quoted-pem", f'"{pem(P256)}"', "holds a key in PEM form", "JWT_KEY_FILE"),
        ("jwk", '{"kty": "oct"}', "holds a key in JWK form", "JWT_KEY_FILE"),
        ("prefixed", f"0x{SECRET}", "begins with 0x", "remove that"),
    ):
        says = f"is not hexadecimal: it {kind}"
        found[name] = Mistake(f"JWT_SHARED_SECRET {says}", secret=text, hint=hint)
        env, files = {"JWT_SHARED_SECRET_FILE": "key"}, {"key": f"{text}\n"}
        found[f"{name}-file"] = Mistake(
            f"JWT_SHARED_SECRET_FILE 'key' {says}", env=env, files=files, secret=None, hint=hint
        )
    return found


KEYS = {
    "secret": instead("JWT_SECRET", "JWT_SHARED_SECRET"),
    "secret-key": instead("JWT_SECRET_KEY", "JWT_SHARED_SECRET"),
    "key": instead("JWT_KEY", "JWT_KEY_FILE"),
    "private-key": instead("JWT_PRIVATE_KEY", "JWT_KEY_FILE"),
    "secret-file": instead("JWT_SECRET_FILE", "JWT_SHARED_SECRET_FILE"),
    ".env": Mistake(
        "JWT_SHARED_SECRET is not set, but JWT_SECRET is", files={".env": f"JWT_SECRET={SECRET}\n"}, secret=None
    ),
    **forms(),
}

MISTAKES = {
    f"{table}-{name}": mistake
    for table, mistakes in {"near": NEAR, "other": OTHERS, "key": KEYS}.items()
    for name, mistake in mistakes.items()
}
SOME = [*(f"near-{name}" for name in SOME_NEAR), *(f"other-{name}" for name in list(OTHERS)[::5])]
SOME += ["other-script-has-no-such-value-serve", "other-script-has-no-such-value-check"]
SOME += ["other-script-has-another", "key-secret", "key-quoted", "key-base64-file", "key-pem"]


@pytest.mark.parametrize("mistake", rows(MISTAKES, *dict.fromkeys(SOME)))
def test_what_is_misspelt_is_refused(run: RunLauncher[Start], tmp_path: Path, mistake: Mistake) -> None:
    """One line names it, one what was meant, or the way out; status 2. Where no script may know it, nothing binds."""
    done = check(run, mistake, tmp_path)
    assert "-s" in mistake.args or not done.bound


def test_there_are_as_many_mistakes_as_were_asked_for() -> None:
    assert len(MISTAKES) + len(BAD_SECRETS) + len(BAD_SETTINGS) + len(BAD_KEYS) >= 500
    assert len(NEAR) >= 40
    assert len(INNOCENT) >= 20


# --- what may be another program's: a warning, and it serves

WARNED = dict(
    word.split(":")
    for word in """
    JWT_USERNAME:JWT_USER JWT_EXP:JWT_TTL JWT_AUD:JWT_AUDIENCE JWT_ISS:JWT_ISSUER JWT_SUB:JWT_SUBJECT
    JWT_ALG:JWT_ALGORITHM JWT_SECRET:JWT_SHARED_SECRET JWT_KEY:JWT_KEY_FILE JWT_KEY_ID:JWT_KID JWT_EXPIRES_IN:JWT_TTL
    JWT_HEADER_NAME:JWT_HEADER JWT_PORT:HTTP_PORT HTTPPORT:HTTP_PORT JWTUSER:JWT_USER WORKER:WORKERS
    """.split()
)


@pytest.mark.parametrize("name", rows({name: name for name in WARNED}, *list(WARNED)[:3], "WORKER"))
def test_what_may_be_another_programs_is_worth_a_warning(
    run: RunLauncher[Start], tmp_path: Path, confdir: Path, name: str
) -> None:
    """One line says what it may mean; --check and the start go on."""
    done = run("--check", "--set", f"confdir={confdir}", cwd=tmp_path, env={name: "1"})
    assert done.returncode == 0, done
    assert done.stderr == f"jwtproxy: warning: unknown variable {name}: did you mean {WARNED[name]}?\n"


LINKS = """
    {0}_SERVICE_HOST=10.0.0.1 {0}_SERVICE_PORT=80 {0}_SERVICE_PORT_HTTP=80 {0}_PORT=tcp://10.0.0.1:80
    {0}_PORT_80_TCP=tcp://10.0.0.1:80 {0}_PORT_80_TCP_PROTO=tcp {0}_PORT_80_TCP_PORT=80 {0}_PORT_80_TCP_ADDR=10.0.0.1
"""
INNOCENT = {
    name: dict(word.split("=", 1) for word in text.split())
    for name, text in {
        "flask-jwt-extended": """
            JWT_SECRET_KEY=s JWT_ACCESS_TOKEN_EXPIRES=900 JWT_REFRESH_TOKEN_EXPIRES=9000 JWT_TOKEN_LOCATION=headers
            JWT_HEADER_NAME=Authorization JWT_HEADER_TYPE=Bearer JWT_COOKIE_SECURE=1 JWT_COOKIE_CSRF_PROTECT=1
            JWT_IDENTITY_CLAIM=sub JWT_DECODE_LEEWAY=5 JWT_ERROR_MESSAGE_KEY=msg JWT_PRIVATE_KEY=p JWT_PUBLIC_KEY=q
            JWT_QUERY_STRING_NAME=jwt JWT_JSON_KEY=access_token JWT_CSRF_METHODS=POST JWT_ENCODE_NBF=1
            JWT_DECODE_ALGORITHMS=HS256 JWT_DECODE_AUDIENCE=a JWT_ENCODE_AUDIENCE=a JWT_SESSION_COOKIE=0""",
        "flask-jwt": "JWT_AUTH_URL_RULE=/auth JWT_EXPIRATION_DELTA=300 JWT_NOT_BEFORE_DELTA=0 JWT_VERIFY=1",
        "django": "DJANGO_SETTINGS_MODULE=a.b SECRET_KEY=s JWT_AUTH_COOKIE=c JWT_SIGNING_KEY=k",
        "drf": "JWT_ALLOW_REFRESH=1 JWT_REFRESH_EXPIRATION_DELTA=7 JWT_AUTH_HEADER_PREFIX=JWT JWT_VERIFY_EXPIRATION=1",
        "laravel": """APP_KEY=k JWT_SECRET=s JWT_REFRESH_TTL=20160 JWT_ALGO=HS256 JWT_BLACKLIST_ENABLED=true
            JWT_BLACKLIST_GRACE_PERIOD=0 JWT_PASSPHRASE=p JWT_PUBLIC_KEY=a JWT_PRIVATE_KEY=b JWT_LEEWAY=0""",
        "symfony": "JWT_SECRET_KEY=%kernel%/a.pem JWT_PUBLIC_KEY=%kernel%/b.pem JWT_PASSPHRASE=p APP_ENV=dev",
        "nestjs": "JWT_SECRET=s JWT_EXPIRES_IN=1h JWT_EXPIRATION_TIME=60 JWT_REFRESH_SECRET=r",
        "express": "NODE_ENV=production JWT_ACCESS_SECRET=a JWT_ACCESS_TOKEN_SECRET=b PORT=3000",
        "spring": "JWT_ISSUER_URI=https://i JWT_JWK_SET_URI=https://i/jwks JWT_EXPIRATION=9 SPRING_PROFILES_ACTIVE=dev",
        "supabase": "JWT_SECRET=s JWT_EXPIRY=3600 ANON_KEY=a SERVICE_ROLE_KEY=b PGRST_JWT_SECRET=s GOTRUE_JWT_EXP=9",
        "jitsi": """JWT_APP_ID=a JWT_APP_SECRET=s JWT_ACCEPTED_ISSUERS=i JWT_ACCEPTED_AUDIENCES=a JWT_AUTH_TYPE=token
            JWT_ASAP_KEYSERVER=https://k JWT_ALLOW_EMPTY=0 JWT_TOKEN_AUTH_MODULE=token_verification""",
        "onlyoffice": "JWT_ENABLED=true JWT_SECRET=s JWT_IN_BODY=true",
        "hasura": "HASURA_GRAPHQL_JWT_SECRET={} HASURA_GRAPHQL_ADMIN_SECRET=a HASURA_GRAPHQL_UNAUTHORIZED_ROLE=anon",
        "gitlab": "CI=true CI_JOB_JWT=e CI_JOB_JWT_V1=e CI_JOB_JWT_V2=e CI_JOB_TOKEN=t GITLAB_USER_LOGIN=me",
        "github": "CI=true GITHUB_TOKEN=t ACTIONS_ID_TOKEN_REQUEST_TOKEN=t ACTIONS_ID_TOKEN_REQUEST_URL=https://x",
        "jenkins": "JENKINS_URL=https://j BUILD_NUMBER=7 WORKSPACE=/w NODE_NAME=n EXECUTOR_NUMBER=1",
        "kubernetes": LINKS.format("JWT"),
        "kubernetes-jwt-auth": LINKS.format("JWT_AUTH"),
        "kubernetes-jwt-user-service": LINKS.format("JWT_USR") + "KUBERNETES_PORT=tcp://10.0.0.1:443",
        "kubernetes-jwtproxy": LINKS.format("JWTPROXY") + LINKS.format("JWT_PROXY"),
        "docker-links": "JWT_NAME=/web/jwt JWT_PORT_53_UDP=udp://10.0.0.1:53 JWT_ENV_VERSION=1",
        "proxies": "HTTP_PROXY=http://p:1 HTTPS_PROXY=http://p:1 http_proxy=http://p:1 NO_PROXY=x HTTPS_PORT=443",
        "heroku": "PORT=5000 WEB_CONCURRENCY=2 DYNO=web.1 JWT_TOKEN=t JWT_UUID=u JWT_URL=https://i",
        "roles": "JWT_ROLE=admin JWT_ROLES=a,b JWT_SCOPE=read JWT_KEY=k JWT_KEY_ID=i JWT_ENV=dev JWT_DEBUG=1",
    }.items()
}
SILENT = "hasura gitlab github jenkins proxies".split() + [name for name in INNOCENT if name.startswith("kubernetes")]
"""Those that are not even worth a warning."""


@pytest.mark.parametrize(
    "name", rows({name: name for name in INNOCENT}, "flask-jwt-extended", "laravel", "kubernetes", "gitlab", "roles")
)
def test_an_innocent_environment_stands_in_no_way(
    run: RunLauncher[Start], tmp_path: Path, confdir: Path, name: str
) -> None:
    """Whatever other programs have there: no error, and at most warnings, which show no value."""
    done = run("--check", "--set", f"confdir={confdir}", cwd=tmp_path, env=INNOCENT[name])
    assert done.returncode == 0, done
    assert done.stdout.startswith("jwtproxy: all settings are valid\n")
    lines = done.stderr.splitlines()
    assert all(line.startswith("jwtproxy: warning: unknown variable") for line in lines), done.stderr
    assert bool(lines) == (name not in SILENT)


def _with_names(text: str, found: Mapping[str, str]) -> bool:
    return all(name in text for name in found)


def test_warned_it_serves_and_signs(start_proxy: StartProxy, recorder: Recorder, tmp_path: Path) -> None:
    """Beside the variables of another program, and with an option that a script has."""
    (tmp_path / "mine.py").write_text("def load(loader):\n    loader.add_option('mine', str, '', 'Of a script.')\n")
    found = INNOCENT["flask-jwt-extended"]
    proxy = start_proxy("-s", str(tmp_path / "mine.py"), "--set", "mine=1", env={**found, "JWT_USER": "ci"})
    with Raw(proxy.port) as client:
        assert client.request(message("GET", f"{recorder.url}/", f"Host: {recorder.authority}")).status == 200
    assert verify(recorder.only().token)["payload"]["user"] == "ci"  # type: ignore[index]
    assert _with_names(proxy.stderr, found)
    assert "error" not in proxy.stderr.replace("JWT_ERROR_MESSAGE_KEY", "").lower()


@pytest.mark.parametrize("command", [["explain", "GET", "http://api.example/"], ["keys", "list"]])
def test_other_commands_say_the_same(run: RunLauncher[Start], tmp_path: Path, command: list[str]) -> None:
    """They read the same settings."""
    mistake = NEAR["variable-JWT_USR"]
    check(run, replace(mistake, args=command), tmp_path)
    done = run(*command, cwd=tmp_path, env={"JWT_EXP": "1"})
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
