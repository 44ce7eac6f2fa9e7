"""The benchmark's command line.

    python -m bench throughput --only rowcron,graphile --rounds 3
    python -m bench throughput raw --short --case async
    python -m bench all --resume            # everything; goes on where it was stopped
    python -m bench wakeup                  # one measure anew; the other figures stay
    python -m bench report                  # page and plots from the figures that there are

Run it in tests/ (or `make bench`). Rounds are interleaved: every tool once, then every tool again.
Figures are kept as they come in --out (docs/bench). What fails or hangs is recorded as such, and
the rest goes on.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from bench import envs, report
from bench.limit import within
from bench.plan import Case, Context
from bench.results import Results
from bench.server import DURABLE, Server, stop_others
from bench.tools import OTHERS, TOOLS, Tool
from harness import ROOT

MEASURES = (
    "raw", "throughput", "sqljobs", "wakeup", "idle", "recurring", "flat", "snapshot", "memory",
    "wal", "enqueue",
)  # fmt: skip
SHORT = {"raw": "batch-*", "throughput": "async", "wakeup": "idle"}
MINUTES = {"all": 38.0, "short": 2.8}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("measures", nargs="+", choices=[*MEASURES, "all", "short", "report"])
    parser.add_argument("--only", help="these tools, comma between them")
    parser.add_argument(
        "--case", default="", help="only these cases: names or patterns, comma between"
    )
    parser.add_argument("--rounds", type=int, help="interleaved rounds (3, or 1 of what is long)")
    parser.add_argument("--short", action="store_true", help="fewer runs and cases, one round")
    parser.add_argument("--jobs", type=int, help="runs a sample")
    parser.add_argument("--minutes", type=float, help="what does not fit is left out (all: 38)")
    parser.add_argument("--seconds", type=int, help="length of what is measured over a time")
    parser.add_argument("--scale", type=float, default=1.0, help="of the loaded database")
    parser.add_argument("--patience", type=float, default=120.0, help="s of waiting in a sample")
    parser.add_argument("--bin", type=Path, help="server binaries (default: embedded)")
    parser.add_argument("--set", action="append", default=[], help="server setting NAME=VALUE")
    parser.add_argument("--rowcron", default="", help="more options of `rowcron worker`")
    parser.add_argument("--resume", action="store_true", help="measure only what is missing")
    parser.add_argument("--anew", action="store_true", help="forget all figures first")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "bench")
    parser.add_argument("--name", default="results", help="name of the JSON file in --out")
    return parser.parse_args()


def versions(tools: list[str]) -> dict[str, str]:
    """What is compared, as installed."""
    found = {"rowcron": envs.fingerprint()}
    pinned = {name.split("@")[0]: name.split("@")[1] for name in envs.NPM}
    for name in tools:
        if name == "graphile":
            found[name] = f"graphile-worker {pinned['graphile-worker']}"
        elif name == "pgboss":
            found[name] = f"pg-boss {pinned['pg-boss']}"
        elif name != "rowcron" and name in envs.PINNED:
            found[name] = envs.PINNED[name][0]
    return found


def measure(name: str, options: argparse.Namespace, context: Context, results: Results) -> None:
    """All rounds of all tools, one measurement."""
    module = importlib.import_module(f"bench.{name}")
    only = (*options.only.split(","), "pgbench") if options.only else (*TOOLS, *OTHERS)
    every = TOOLS | OTHERS
    context.tools = tuple(every[t] for t in getattr(module, "ONLY", TOOLS) if t in only)
    patterns = (options.case or (SHORT[name] if options.measures == ["short"] else "*")).split(",")
    for case in module.cases(context):
        if not any(fnmatch(case.name, pattern) for pattern in patterns):
            continue
        rounds = options.rounds or (1 if options.short else case.rounds)
        for context.number in range(1, rounds + 1):
            for tool in context.tools:
                key = {"tool": tool.name, "server": context.server.version}
                if options.resume and results.has(
                    measure=name, case=case.name, round=context.number, of=results.of, **key
                ):
                    continue
                if time.monotonic() + case.takes > context.until:
                    print(
                        f"{name}/{case.name:18} {tool.name:14} left out: no time left", flush=True
                    )
                    continue
                if context.number == 1 and not options.resume:
                    results.forget(measure=name, case=case.name, **key)
                take(module, context, tool, case, results, key | {"round": context.number})


def take(
    module: Any, context: Context, tool: Tool, case: Case, results: Results, key: dict[str, Any]
) -> None:
    """One sample, whatever comes of it."""
    begin = time.monotonic()
    figures: dict[str, Any]
    try:
        with within(case.limit):
            answer = module.sample(context, tool, case)
        figures = {"cannot": answer} if isinstance(answer, str) else answer
    except Exception as error:  # one that fails must not end hours of work
        figures = {"failed": str(error) or repr(error)}
        if not context.server.answers():
            context.server = context.server.again()
    took = time.monotonic() - begin
    results.add(case, module.NAME, {**figures, "took s": round(took, 1), "of": results.of}, **key)
    told = figures.get("value", figures.get("cannot") or figures.get("failed"))
    told = f"{told:,.2f} {case.unit}" if isinstance(told, float | int) else told
    print(f"{module.NAME}/{case.name:18} {key['tool']:14} {told}   ({took:.0f} s)", flush=True)


def main() -> int:
    """Measure, then write page and plots."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the server must not outlive us
    results = Results(options.out / f"{options.name}.json", anew=options.anew)
    first = options.measures[0]
    names = {"all": list(MEASURES), "short": list(SHORT)}.get(first, options.measures)
    if names != ["report"]:
        now = versions(list(TOOLS))
        minutes = options.minutes or MINUTES.get(first, float("inf"))
        until = time.monotonic() + minutes * 60
        for tool in TOOLS.values():
            tool.program()  # installed before anything is measured
        server = Server(options.bin, **dict(pair.split("=", 1) for pair in options.set))
        context = Context(
            server, options.short, options.jobs, options.seconds, options.scale, options.patience,
            options.case, tuple(options.rowcron.split()), until=until,
        )  # fmt: skip
        try:
            server.start()
            results.about(
                python=envs.python_version(), versions=now, postgresql=DURABLE,
                settings={t.name: t.settings for t in TOOLS.values()},
            )  # fmt: skip
            for name in names:
                if name != "report":
                    measure(name, options, context, results)
        except KeyboardInterrupt:
            print("interrupted; `--resume` goes on", file=sys.stderr)
        finally:
            context.server.stop()
            stop_others()
    report.write(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
