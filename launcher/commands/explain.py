"""`jwtproxy-run explain METHOD URL`: which rule decides on a request, and the token it would get. Nothing is sent."""

import asyncio
import json
from typing import Any

import jwt

from jwtproxy.conduct.destination import Destination
from jwtproxy.conduct.verdict import Forward, Verdict
from jwtproxy.config.errors import SettingsError

from .. import asked, commandline, usage
from ..report import MISTAKEN, report

_DESCRIPTION = """\
Show which rule applies to a request, and the token it would get. Settings are read as for serving;
nothing is sent, resolved or listened on. Rules about the client's address see 127.0.0.1."""
_EXAMPLES = """\
examples:
  jwtproxy-run explain GET https://api.example/v1/things
  jwtproxy-run explain --rules rules.yaml -H 'Content-Type: text/plain' POST http://pay.example:8080/
  jwtproxy-run explain --json GET https://api.example/ | jq .token.claims.aud
"""


def run(arguments: list[str]) -> int:
    """Explain one request; the exit status."""
    try:
        print(asyncio.run(_explain(arguments)))
    except SettingsError as error:
        report(str(error), error.hint)
        return MISTAKEN
    return 0


async def _explain(arguments: list[str]) -> str:
    """What to print. Raises SettingsError."""
    with commandline.preview() as master:
        parser = asked.parser(master.options)
        usage.of_command(parser, "explain", "[options] METHOD URL", _DESCRIPTION, _EXAMPLES)
        own = parser.add_argument_group("explain", conflict_handler="resolve")
        own.add_argument("--json", action="store_true", help="print JSON, for scripts")
        args, words = asked.read(parser, arguments)
        commandline.refuse(args, "explain", "check")
        if len(words) != 2:
            hint = "jwtproxy-run explain GET https://api.example/"
            raise SettingsError(f"explain needs a method and a URL, not {' '.join(words)!r}", hint)
        destination, verdict = asked.decided(master, args, *words)
    decided = _told(destination, verdict)
    return json.dumps(decided, indent=2) if args.json else _in_words(decided)


def _told(destination: Destination, verdict: Verdict) -> dict[str, Any]:
    """The verdict as `--json` tells it."""
    told: dict[str, Any] = {"destination": destination.origin, "rule": verdict.rule, "place": verdict.place}
    if isinstance(verdict, Forward):
        action = "sign" if verdict.header else "pass"
        token = _token(verdict)
        return told | {"action": action, "status": None, "header": verdict.header, "token": token, "reason": None}
    action = "block" if verdict.rule else "refuse"
    return told | {"action": action, "status": verdict.status, "header": None, "token": None, "reason": verdict.text}


def _token(verdict: Forward) -> dict[str, Any] | None:
    """Header and claims of the token; the signature stays here."""
    if not verdict.header:
        return None
    token = jwt.decode_complete(verdict.fields[-1][1], options={"verify_signature": False})
    return {"header": token["header"], "claims": token["payload"]}


def _in_words(decided: dict[str, Any]) -> str:
    """For people."""
    rule, place = decided["rule"], decided["place"]
    outcome = {
        "sign": f"sign: a token in {decided['header']}",
        "pass": "pass: no token",
        "block": "block: 403",
        "refuse": f"refuse: {decided['status']}, {decided['reason']}",
    }[decided["action"]]
    lines = [
        f"destination  {decided['destination']}",
        f"rule         {rule or 'none applies'}{f' ({place})' if place else ''}",
        f"action       {outcome}",
    ]
    for name, part in (decided["token"] or {}).items():
        lines += ["", f"token's {name}", json.dumps(part, indent=2, ensure_ascii=False)]
    return "\n".join(lines)
