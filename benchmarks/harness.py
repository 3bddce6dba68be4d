"""What all benchmarks do alike: options, time, memory, processes of their own, tables in Markdown.

A script is a table: what it compares, and how one row of it is measured. It imports this module
before Keras, as TensorFlow reads the environment when it is imported.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Known before the options are read: a script's constants depend on it.
QUICK = "--quick" in sys.argv
CALL = "--call"
PACKAGES = ("keras_transfer", "keras", "tensorflow", "scikit-learn", "numpy")
STATUS = Path("/proc/self/status")  # Linux says there what memory a process has


# === Options ===


def make_parser(document, quick, seeds=None):
    """Return a parser with the options that scripts share.

    `quick` says what --quick takes less of. It changes defaults: what is given beside it counts.
    """
    parser = argparse.ArgumentParser(description=document.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=quick)
    if seeds:
        parser.add_argument("--seeds", type=int, default=1 if QUICK else seeds, help="draws")
    return parser


def read_options(parser):
    """Read the options, and print them with the versions of what is measured."""
    options = parser.parse_args()
    settings = (f"{name}={value}" for name, value in vars(options).items())
    print(f"{Path(sys.argv[0]).name}: {', '.join(settings)}")
    versions = map(with_version, PACKAGES)
    print(f"Python {platform.python_version()}, {', '.join(versions)}", flush=True)
    return options


def with_version(name, package=None):
    try:
        return f"{name} {importlib.metadata.version(package or name)}"
    except importlib.metadata.PackageNotFoundError:
        return name


def matching(names, parts):
    """Return the names that contain one of the parts; all, where no part is given."""
    return [name for name in names if not parts or any(part in name for part in parts)]


# === Time and memory ===


def timed(work, *arguments, **settings):
    """Return the seconds that a call takes, and its answer."""
    began = time.monotonic()
    answer = work(*arguments, **settings)
    return time.monotonic() - began, answer


def memory(what):
    """Return the MiB of this process: "VmRSS", now; "VmHWM", at most until now."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


# === Processes of their own ===


def run_apart(function, *arguments):
    """Run a function of the script in a new process, with the same options; return its answer.

    Arguments and answer pass as JSON. What the function prints belongs to stderr.
    """
    call = [CALL, function.__name__, json.dumps(arguments)]
    command = [sys.executable, sys.modules["__main__"].__file__, *call, *sys.argv[1:]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run(main):
    """Run a script; or one function of it, in a process that `run_apart` started."""
    if sys.argv[1:2] != [CALL]:
        sys.exit(main())
    name, arguments = sys.argv[2:4]
    del sys.argv[1:4]  # the options are left
    print(json.dumps(getattr(sys.modules["__main__"], name)(*json.loads(arguments))))


# === What is printed ===


def header(*columns):
    print("\n|", " | ".join(columns), "|")
    print("| --- |" + " --- |" * (len(columns) - 1), flush=True)


def row(*cells):
    print("|", " | ".join(cells), "|", flush=True)


def spread(values, form=".2f"):
    """Return mean ± standard deviation of the numbers that are known; of one, itself."""
    known = np.array(values, float)
    known = known[~np.isnan(known)]
    if len(known) < 2:
        return f"{known[0]:{form}}" if len(known) else "-"
    return f"{known.mean():{form}} ± {known.std():{form}}"


def note(text):
    """Say how far it is, beside the tables."""
    print(text, file=sys.stderr, flush=True)
