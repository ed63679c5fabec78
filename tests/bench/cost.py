#!/usr/bin/env python3
"""Requests and what they cost, from the counts of a run of scripts/bench.

    cost.py FIGURES.json

FIGURES.json is what `scripts/bench --json` wrote. Prints the README's tables: what one thing costs, and what a month of
the site below does. Prices are those of `PRICES`, with the day on which they were read.
"""

import json
import pathlib
import sys

# Dollars; first tier, without what the first months or the first millions are free. S3: Standard in us-east-1.
PRICES_OF = "2026-11-22"
PRICES = {
    "R2": {"write": 4.50e-6, "read": 0.36e-6, "stored_gb": 0.015, "sent_gb": 0.0},
    "S3": {"write": 5.00e-6, "read": 0.40e-6, "stored_gb": 0.023, "sent_gb": 0.09},
}

# What the stores bill as which class; deleting is free.
READS = {"HeadObject", "GetObject"}
FREE = {"DeleteObject", "DeleteObjects", "AbortMultipartUpload"}

# A site with photos, in a month. Views come from a warm cache or from a CDN but for a share of them.
SITE = {"saves": 30_000, "views": 3_000_000, "cold_share": 0.02, "listings": 3_000, "stored_gb": 100}
PHOTO_GB = 32 / (1 << 20)

STEPS = [
    ("save a new file of 32 KiB", "save"),
    ("view one for the first time", "view"),
    ("view it again", "view again"),
    ("ask for a name that isn't there", "exists, missing"),
    ("list a directory of {listed:,} and stat its files", "list"),
    ("the same again", "list again"),
    ("rename a directory of {moved}", "rename a directory"),
    ("remove it", "remove"),
]


def dollars(requests, prices):
    return sum(count * price_of(name, prices) for name, count in requests.items())


def price_of(operation, prices):
    return 0.0 if operation in FREE else prices["read"] if operation in READS else prices["write"]


def listing(requests):
    """One after a while: its LISTs are new, and the metadata is asked for by who asks for it each time."""
    lists = {name: count for name, count in requests["list"].items() if name.startswith("List")}
    heads = {name: count for name, count in requests["list again"].items() if name == "HeadObject"}
    return {**lists, **heads}


def month(requests, prices):
    """Dollars for the site: requests, storage, and what the cold views fetch."""
    cold = SITE["views"] * SITE["cold_share"]
    asked = SITE["saves"] * dollars(requests["save"], prices) + cold * dollars(requests["view"], prices)
    asked += SITE["listings"] * dollars(listing(requests), prices)
    return asked, SITE["stored_gb"] * prices["stored_gb"], cold * PHOTO_GB * prices["sent_gb"]


def shown(requests):
    return ", ".join(f"{count:.4g} {name}" for name, count in requests.items()) or "none"


def per_thousand(amount):
    return f"${amount * 1000:.4f}"


def step_table(requests, sizes):
    lines = ["| mediafs | requests | R2, a thousand of it | S3, a thousand of it |", "|---|---|---:|---:|"]
    for text, step in STEPS:
        asked = requests.get(step, {})
        costs = " | ".join(per_thousand(dollars(asked, prices)) for prices in PRICES.values())
        lines.append(f"| {text.format(**sizes)} | {shown(asked)} | {costs} |")
    return lines


def month_table(of_targets):
    lines = ["| a month of that site | " + " | ".join(f"{store}: requests" for store in PRICES) + " | R2 in all | S3 in all |", "|---|" + "---:|" * 4]
    for name, requests in of_targets.items():
        bills = {store: month(requests, prices) for store, prices in PRICES.items()}
        requests_only = " | ".join(f"${bill[0]:.2f}" for bill in bills.values())
        lines.append(f"| {name} | {requests_only} | " + " | ".join(f"${sum(bill):.2f}" for bill in bills.values()) + " |")
    return lines


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    figures = json.loads(pathlib.Path(sys.argv[1]).read_text())
    # Counts don't depend on the distance, but for timing: the first one measured.
    results = next(iter(figures["results"].values()))
    remote = {name: found["requests"] for name, found in results.items() if {"save", "view", "list again"} <= found["requests"].keys()}
    print(f"Prices of {PRICES_OF}. The site: {SITE}\n")
    print(*step_table(remote["mediafs"], figures["sizes"]), "", *month_table(remote), sep="\n")


if __name__ == "__main__":
    main()
