"""Options and preparations that bench/run and bench/compare share."""

import datetime
import os
import pathlib
import platform
import resource
import signal
import subprocess
import sys

from .servers import ROOT, Failed, Missing, find


def add_options(parser):
    parser.add_argument("--quick", action="store_true", help="everything once, small and short: to see that it works")
    parser.add_argument("--build-dir", type=pathlib.Path, metavar="DIR",
                        help="measure the programs there, and build nothing (default: a release build in build/bench)")
    parser.add_argument("--duration", type=float, metavar="S", help="seconds of each measured window (default 3)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write all that was measured there")
    parser.add_argument("--svg", type=pathlib.Path, metavar="FILE", help="draw it there")


def prepare(options):
    """After this a signal ends everything that was started, and there are programs to measure."""
    signal.signal(signal.SIGTERM, _raise_exit)
    signal.signal(signal.SIGHUP, _raise_exit)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    options.files = hard if hard != resource.RLIM_INFINITY else 1 << 20
    options.duration = options.duration or (0.4 if options.quick else 3)
    options.warmup = 0.1 if options.quick else 1
    if options.build_dir:
        options.build_dir = options.build_dir.resolve()
        return
    options.build_dir = ROOT / "build/bench"
    say(f"building a release into {options.build_dir.relative_to(ROOT)}")
    generator = [] if (options.build_dir / "CMakeCache.txt").exists() else ["-G", "Ninja"]
    for command in (
            [find("cmake"), "-S", ROOT, "-B", options.build_dir, *generator, "-DCMAKE_BUILD_TYPE=Release", "-DSWITCHBOARD_TESTS=OFF"],
            [find("cmake"), "--build", options.build_dir, "--target", "switchboard", "bench_load", "bench_floor"]):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"the build failed:\n{(done.stdout + done.stderr)[-2000:]}")


def _raise_exit(number, _frame):
    sys.exit(128 + number)


def say(text):
    print(text, file=sys.stderr, flush=True)


def _commit():
    try:
        return subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""


def circumstances():
    """Where and when: the head of every report."""
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    commit = _commit()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{os.cpu_count()} × {model}",
        "kernel": platform.release(),
        "commit": commit,
        "load": round(os.getloadavg()[0], 2),
    }


def head(about):
    busy = f"; load average {about['load']} at the start: other work disturbs the numbers" if about["load"] > 0.7 else ""
    return f"{about['date']}, {about['processor']}, Linux {about['kernel']}, Switchboard {about['commit']}{busy}"


def main(run):
    try:
        sys.exit(run())
    except (Failed, Missing) as error:
        say(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
