"""How the page stands many visitors at once: errors, seconds of waiting, and memory before and after.

    python benchmarks/page_load.py --clients 50 --rounds 3

Every visitor is a client of its own, and asks for the defects of a microworld picture as soon as it has the answer
before. A visitor who finds the queue full is told so; that is counted, and is no error.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gradio_client import Client, handle_file

from sdg.defects import DefectSet
from sdg.detector import load_detector
from sdg.web import build_page, launch_options, microworld_examples


def resident() -> float:
    """Megabytes that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def visit(url: str, pictures: list[tuple[str, str]], rounds: int, number: int) -> tuple[Counter[str], list[float]]:
    """One visitor: what became of the requests, and the seconds that each answer took."""
    became: Counter[str] = Counter()
    seconds = []
    try:
        client = Client(url, verbose=False)
    except Exception as error:
        return Counter({f"could not connect: {type(error).__name__}": rounds}), []
    for turn in range(rounds):
        path, caption = pictures[(number + turn) % len(pictures)]
        started = time.perf_counter()
        try:
            found = DefectSet.from_json(client.predict(handle_file(path), caption, api_name="/detect"))
            became["answered" if found.parse_error is None else "answered, unreadable"] += 1
            seconds.append(time.perf_counter() - started)
        except Exception as error:
            full = "waiting already" in str(error)
            became["queue full" if full else f"error: {type(error).__name__}: {error!s:.80}"] += 1
    client.close()
    return became, seconds


def main() -> None:
    """Serve, visit, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=50, help="visitors at once")
    parser.add_argument("--rounds", type=int, default=3, help="pictures of each visitor; memory is read after each")
    parser.add_argument("--model", default="sdg-tiny", help="embedded name, folder or Hub id")
    parser.add_argument("--out", type=Path, help="also write the figures here as JSON")
    options = parser.parse_args()

    page = build_page(load_detector(options.model))
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    pictures = [(str(example.path), example.caption) for example in microworld_examples(8)]
    visit(url, pictures, 1, 0)  # what is loaded with the first picture is not what a visitor costs
    memory, all_became, all_seconds = [resident()], Counter(), []
    started = time.perf_counter()
    with ThreadPoolExecutor(options.clients) as pool:
        for _ in range(options.rounds):
            for became, seconds in pool.map(lambda n: visit(url, pictures, 1, n), range(options.clients)):
                all_became += became
                all_seconds += seconds
            memory.append(resident())
    took = time.perf_counter() - started
    page.close(verbose=False)

    waits = sorted(all_seconds)
    figures = {
        "model": options.model,
        "clients": options.clients,
        "requests": options.clients * options.rounds,
        "became": dict(all_became),
        "pictures_per_second": round(len(waits) / took, 2),
        "seconds_median": round(waits[len(waits) // 2], 2) if waits else None,
        "seconds_longest": round(waits[-1], 2) if waits else None,
        "memory_mb_before_and_after_each_round": [round(m) for m in memory],
        "machine": f"{platform.processor() or platform.machine()}, Python {platform.python_version()}",
    }
    print(json.dumps(figures, indent=2))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
