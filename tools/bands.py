"""Measure the bands of `notebooks/expected.yml`: `make bands NB=01 PROFILE=smoke DATA=sample SEEDS="0 1 2"`.

Each notebook runs once a seed. The band of a metric is the 99% prediction interval for one more run (Student's t),
at least `FLOOR` of the mean wide on each side and never outside [0, 1] for a metric that is an accuracy. Entries of
other notebooks, tiers and profiles stay as they are.
"""

import argparse
import os
import platform
import shutil
import sys
from datetime import date
from pathlib import Path

import numpy as np
import yaml
from scipy.stats import t

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from helpers import run, session

HEADER = """\
# The band of each result: notebook, data tier, profile, metric. Written by `make bands`; do not edit by hand.
# low and high: mean -/+ t(0.995, n-1) * s * sqrt(1 + 1/n) over the n values, the 99% prediction interval for one more
# run, and at least 0.2% of the mean (2% on the sample, where one image of 150 is 0.7%); an accuracy is cut to [0, 1].
"""


FLOOR = {"full": 0.002, "sample": 0.02}  # by tier: one image of the sample's 150 validation images is 0.7%


def band_of(metric, values, tier="full"):
    """(low, high) of the stated rule for at least three values."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    if n < 3 or not np.isfinite(values).all():
        raise ValueError(f"a band needs at least three finite values; {metric} has {values.tolist()}")
    half = t.ppf(0.995, n - 1) * values.std(ddof=1) * np.sqrt(1 + 1 / n)
    half = max(half, FLOOR[tier] * abs(values.mean()))
    low, high = values.mean() - half, values.mean() + half
    if "accuracy" in metric:
        low, high = max(low, 0.0), min(high, 1.0)
    return float(f"{low:.5g}"), float(f"{high:.5g}")


def machine():
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def measure(path, profile, data, seeds):
    """(tier, {metric: band}) of one notebook."""
    folder = run.ROOT / "build" / "bands"
    values, tier = {}, None
    for seed in seeds:
        [record] = run.run([path], profile, data, {"seed": seed}, folder=folder / f"{profile}-{data}-{seed}")
        if record["status"] != "ok":
            raise SystemExit(f"error: {path.stem} failed with seed {seed}: {record['error']}")
        tier = record["data"]
        for metric, value in record["results"].items():
            values.setdefault(metric, []).append(float(f"{value:.6g}"))
    bands = {}
    for metric, found in values.items():
        low, high = band_of(metric, found, tier)
        bands[metric] = {"low": low, "high": high, "values": found, "seeds": list(seeds)}
    return tier, bands


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*")
    parser.add_argument("--profile", default="default")
    parser.add_argument("--data", choices=("full", "sample"), default="full")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    os.environ[session.MEASURE] = "1"
    os.environ["PYTHONPATH"] = str(run.ROOT)
    for path in run.find_notebooks(options.notebooks):
        tier, bands = measure(path, options.profile, options.data, options.seeds)
        every = session.read_bands()
        every.setdefault(path.stem, {}).setdefault(tier, {})[options.profile] = {
            "measured": f"{date.today()}, {machine()}",
            **bands,
        }
        part = session.BANDS.with_suffix(".part")
        part.write_text(HEADER + yaml.safe_dump(every, allow_unicode=True, width=110), encoding="utf-8")
        part.replace(session.BANDS)
        print(f"{path.stem}, {tier} data, {options.profile}: {bands}", flush=True)
    shutil.rmtree(run.ROOT / "build" / "bands", ignore_errors=True)


if __name__ == "__main__":
    main()
