"""What judges in the benchmark: tokens that arrived, promises, the gate. Nothing here is timed."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jwtproxy.tokens.claims import default_claims
from jwtproxy.tokens.signing import Signer
from tests.benchmarks import gate, report, rounds, targets
from tests.benchmarks.arrivals import Arrivals, keeping, verdict
from tests.benchmarks.rounds import SCENARIOS, Settings
from tests.benchmarks.targets import Cores
from tests.benchmarks.upstream import Upstream
from tests.support.harness import SECRET
from tests.support.upstreams import Authority

NOW = 1_800_000_000  # 2027-01-15
KEY = bytes.fromhex(SECRET)


def token(key: bytes = KEY, algorithm: str = "HS512", **changed: object) -> str:
    """A right token of NOW, but for these claims; None removes one."""
    claims = default_claims("username", NOW) | changed
    return Signer(key, algorithm).sign({name: value for name, value in claims.items() if value is not None})


# --- tokens that arrived


def test_a_right_token_has_no_fault() -> None:
    assert verdict([token(jti="a" * 32)], NOW - 1, NOW + 1) == ("", "a" * 32)


WRONG = {
    "none": ([], "0 tokens"),
    "two": ([token(), token()], "2 tokens"),
    "no JWT": (["token"], "not ours"),
    "another key": ([token(key=b"x" * 64)], "not ours"),
    "another algorithm": ([token(algorithm="HS256")], "not ours"),
    "made before": ([token(iat=NOW - 10)], "iat"),
    "made later": ([token(iat=NOW + 10)], "iat"),
    "half a second": ([token(iat=NOW + 0.5)], "iat"),
    "no iat": ([token(iat=None)], "iat"),
    "a short id": ([token(jti="1")], "jti"),
    "no id": ([token(jti=None)], "jti"),
    "another user": ([token(payload={"user": "root", "date": "2027-01-15"})], "claims"),
    "another day": ([token(payload={"user": "username", "date": "2027-01-14"})], "claims"),
    "one claim more": ([token(iss="jwtproxy")], "claims"),
}


@pytest.mark.parametrize(("tokens", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_token_has_a_fault(tokens: list[str], said: str) -> None:
    assert said in verdict(tokens, NOW - 1, NOW + 1)[0]


def judge(arrivals: Arrivals, *tokens: str, answered: int = 0) -> dict[str, Any]:
    return arrivals.judge([[one] for one in tokens], NOW, NOW + 1, answered)


def test_an_id_may_come_once_in_all_runs() -> None:
    arrivals, twice = Arrivals(), token()
    assert judge(arrivals, token(), twice) == {"checked": 2, "bad": 0, "repeated": 0}
    assert judge(arrivals, token(), twice)["repeated"] == 1
    assert judge(Arrivals(), twice, twice)["repeated"] == 1


def test_bad_tokens_are_counted() -> None:
    told = judge(Arrivals(), token(), token(iat=1), "x")
    assert told == {"checked": 3, "bad": 2, "repeated": 0, "fault": "iat is 1"}


def test_a_request_that_was_answered_must_have_arrived() -> None:
    assert "fault" not in judge(Arrivals(), token(), answered=1)
    assert judge(Arrivals(), token(), answered=2)["fault"] == "2 requests were answered, 1 arrived"
    assert "0 arrived" in judge(Arrivals())["fault"]


def test_the_upstream_keeps_each_token_of_each_request(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "key.pem").write_bytes(authority.key_pem)
    (tmp_path / "chain.pem").write_bytes(authority.chain_pem)
    lines: list[Sequence[bytes]] = [[b"x-my-jwt: 1"], [], [b"X-My-JWT:2", b"A: b", b"x_my_jwt: 3"], [b"x-my-jwt:"]]
    with keeping("http", Upstream("", tmp_path, authority, {})) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            for fields in lines:
                client.sendall(b"\r\n".join([b"GET /small HTTP/1.1", *fields, b"", b""]))
                assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        assert server.tokens() == [["1"], [], ["2", "3"], [""]]


# --- promises


def results(plain: dict[str, float], **settings: object) -> report.Results:
    """Results in which these targets took so many µs for a plain request, and answered so many a second."""
    rows = {
        key: {
            "label": key,
            "cpu_us_per_request": cost,
            "requests_per_second": 1e6 / cost,
            "rounds": [{"cpu_us_per_request": cost * slow} for slow in (1, 2, 1)],
        }
        for key, cost in plain.items()
    }
    told = {key: {"checked": 1, "bad": 0, "repeated": 0} for key in plain if key.startswith("jwtproxy")}
    scenario = {"title": "plain", "targets": rows, "arrived": told}
    return {"scenarios": {"plain": scenario}, "settings": {"workers": 2, "shared_cores": True, **settings}}


def kept(found: report.Results) -> dict[str, bool | None]:
    return {row["what"]: row["kept"] for row in report.acceptance(found)}


def test_promises_are_shares_of_what_others_take() -> None:
    promises = kept(results({"jwtproxy-1": 90, "mitmdump": 1000, "proxy.py": 140}))
    assert promises["CPU per request, % of mitmdump's: plain"] is False
    assert promises["CPU per request, % of proxy.py's: plain"] is True
    assert promises["CPU per request, % of mitmdump's: https1"] is None


def test_a_machine_that_is_slow_for_a_while_changes_no_share() -> None:
    found = results({"jwtproxy-1": 80, "mitmdump": 1000})
    for target, ticks in (("jwtproxy-1", (80, 80, 160, 160)), ("mitmdump", (1000, 1000, 2000, 2000))):
        found["scenarios"]["plain"]["targets"][target]["rounds"] = [{"cpu_us_per_request": cost} for cost in ticks]
    assert report.share(found, "plain", "jwtproxy-1", "mitmdump") == 0.08
    assert report.share(found, "plain", "jwtproxy-1", "nginx") is None


@pytest.mark.parametrize("shared", [True, False])
def test_throughput_is_judged_only_where_the_load_has_its_own_cores(shared: bool) -> None:
    found = results({"jwtproxy-1": 100, "jwtproxy-2": 110}, shared_cores=shared)
    said = {what: verdict for what, verdict in kept(found).items() if "throughput" in what}
    remark = ", load on the same cores" if shared else ""
    assert said == {
        f"throughput of 2 workers over one's, plain{remark}": None if shared else False,
        "throughput of 2 workers over one's, plain, by CPU per request": True,
    }


def test_every_promise_is_about_a_scenario_and_targets_that_there_are() -> None:
    keys = {target.key for target in targets.all_targets(2)}
    assert {report.OURS, *(promise.theirs for promise in report.PROMISES)} <= keys
    assert {promise.scenario for promise in report.PROMISES} <= {scenario.key for scenario in SCENARIOS}


def test_wrong_tokens_are_told() -> None:
    found = results({"jwtproxy-1": 90})
    assert report.faults(found) == []
    found["scenarios"]["plain"]["arrived"]["jwtproxy-1"] |= {"bad": 1, "fault": "2 tokens instead of one"}
    found["scenarios"]["plain"]["targets"]["jwtproxy-1"]["reason"] = "failed: a token is not fresh"
    assert report.faults(found) == [
        "plain, jwtproxy-1: 1 bad, 0 repeated: 2 tokens instead of one",
        "plain, jwtproxy-1: failed: a token is not fresh",
    ]


# --- the gate


@pytest.mark.parametrize(
    ("ours", "short"),
    [(100, set()), (80, set()), (111, set()), (112, {"plain"})],
    ids=["as", "better", "near", "worse"],
)
def test_the_gate_wants_nine_tenths_of_each_recorded_ratio(ours: float, short: set[str]) -> None:
    recorded = results({"jwtproxy-1": 100, "mitmdump": 1000})
    told = gate.compare(recorded, results({"jwtproxy-1": ours * 2, "mitmdump": 2000}))
    assert gate.short(told) == short
    assert [line.endswith("FAILED") for _, line, _ in told] == [bool(short)]


def test_the_gate_fails_what_can_no_longer_be_measured_and_passes_what_never_was() -> None:
    both, ours = {"jwtproxy-1": 100.0, "mitmdump": 1000.0}, {"jwtproxy-1": 100.0}
    lost = results(both)
    lost["scenarios"]["plain"]["targets"]["mitmdump"]["rounds"] = []
    assert gate.short(gate.compare(results(both), lost)) == {"plain"}
    assert gate.short(gate.compare(results(ours), results(both))) == set()
    assert gate.compare(results(both), results(ours)) == []  # not asked to measure it


# --- what is chosen, and where it runs


def chosen(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name in ("BENCH_ROUNDS", "BENCH_SECONDS", "BENCH_ONLY", "BENCH_TARGETS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings.from_environment(5, 3, SCENARIOS, targets.all_targets(2))


def test_scenarios_and_targets_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = chosen(monkeypatch, BENCH_ONLY="https1,plain", BENCH_TARGETS="mitmdump", BENCH_ROUNDS="1")
    assert [scenario.key for scenario in settings.scenarios] == ["plain", "https1"]
    assert [target.key for target in settings.targets] == ["mitmdump"]
    assert (settings.rounds, settings.seconds, settings.whole) == (1, 3, False)
    assert chosen(monkeypatch).whole


def test_an_unknown_choice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="there is no nosuch, but plain, close, "):
        chosen(monkeypatch, BENCH_ONLY="plain,nosuch")


def test_targets_have_names_of_their_own_and_only_one_of_ours_has_no_lane() -> None:
    everyone = targets.all_targets(2)
    assert len({target.key for target in everyone}) == len({target.label for target in everyone}) == len(everyone)
    ours = [one for one in everyone if one.label.startswith("jwtproxy")]
    lanes = {one.key: one.environment.get("JWT_FAST_LANE") for one in ours if not one.variant}
    assert lanes == {"jwtproxy-1": "on", "jwtproxy-off": "off", "jwtproxy-2": "on"}
    assert all(one.environment.get("JWT_FAST_LANE") == "on" for one in ours if one.variant)


def test_variants_are_measured_where_they_are_named_and_nowhere_else() -> None:
    everyone = targets.all_targets(2)
    for scenario in SCENARIOS:
        about = {one.key for one in everyone if scenario.is_about(one)}
        assert about == (set(scenario.among) or {one.key for one in everyone if not one.variant})
    assert {one.key for one in everyone if one.variant} <= {key for scenario in SCENARIOS for key in scenario.among}


@pytest.mark.parametrize(
    ("count", "proxies", "shared"), [(1, 1, True), (2, 2, True), (3, 3, True), (4, 2, False), (9, 4, False)]
)
def test_proxies_have_half_of_the_cores_where_there_are_four(
    monkeypatch: pytest.MonkeyPatch, count: int, proxies: int, shared: bool
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)))
    cores = Cores.here()
    assert (len(cores.proxies), cores.shared) == (proxies, shared)
    assert cores.proxies | cores.others == set(range(count))
    assert targets.many_workers() == max(2, proxies)


def test_what_differs_by_little_has_cores_of_its_own_where_there_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, shared in ((1, True), (2, False), (3, False)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, count=count: set(range(count)))
        assert Cores.here(fewest=2).shared is shared


def test_what_is_not_installed_is_told() -> None:
    missing = targets.Target("x", "x", None, lacks=lambda: "needs x")
    settings = Settings(1, 1, [], [missing], whole=False)
    with rounds._all_running(settings, None) as (everyone, rows):  # type: ignore[arg-type]  # no site: nothing is started
        assert everyone == []
        assert rows["x"].as_dict() == {"label": "x", "reason": "needs x"}
