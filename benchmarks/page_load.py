"""How the page stands many visitors at once: errors, seconds of waiting, and memory before and after.

    python benchmarks/page_load.py --clients 50 --rounds 3

In every round all of them come at once, each a new client that asks for the defects of a microworld picture. A visitor
who finds the queue full is told so; that is counted, and is no error.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

from gradio_client import Client, handle_file

from sdg.defects import DefectSet
from sdg.detector import load_detector
from sdg.provenance import write_result
from sdg.web import build_page, launch_options, microworld_examples


def serve(model: str, pipe: Connection) -> None:
    """The page, in a process of its own, so that its memory is not the visitors'; until it is told to end."""
    page = build_page(load_detector(model))
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    pipe.send(url)
    pipe.recv()
    page.close(verbose=False)


def resident(process: int) -> float:
    """Megabytes that a process holds (Linux)."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def visit(url: str, path: str, caption: str) -> tuple[str, float | None]:
    """One visitor: what became of the request, and the seconds that an answer took."""
    started, client = time.perf_counter(), None
    try:
        client = Client(url, verbose=False)
        found = DefectSet.from_json(client.predict(handle_file(path), caption, api_name="/detect"))
    except Exception as error:
        full = "waiting already" in str(error)
        return "queue full" if full else f"error: {type(error).__name__}: {error!s:.80}", None
    finally:
        if client is not None:
            client.close()  # a visitor who leaves: the page may forget the session
    return "answered" if found.parse_error is None else "answered, unreadable", time.perf_counter() - started


def main() -> None:
    """Serve, visit, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=50, help="visitors at once")
    parser.add_argument("--rounds", type=int, default=3, help="memory is read after each")
    parser.add_argument("--model", default="sdg-tiny", help="embedded name, folder or Hub id")
    parser.add_argument("--out", type=Path, help="also write the figures here as JSON")
    options = parser.parse_args()

    spawn = multiprocessing.get_context("spawn")
    pipe, theirs = spawn.Pipe()
    server = spawn.Process(target=serve, args=(options.model, theirs), daemon=True)
    server.start()
    url = pipe.recv()
    pictures = [(str(example.path), example.caption) for example in microworld_examples(8)]
    visit(url, *pictures[0])  # what is loaded with the first picture is not what a visitor costs
    memory = [resident(server.pid)]
    became: Counter[str] = Counter()
    seconds: list[float] = []
    started = time.perf_counter()
    with ThreadPoolExecutor(options.clients) as pool:
        for _ in range(options.rounds):
            for what, wait in pool.map(lambda n: visit(url, *pictures[n % len(pictures)]), range(options.clients)):
                became[what] += 1
                seconds += [] if wait is None else [wait]
            memory.append(resident(server.pid))
    took = time.perf_counter() - started
    pipe.send("end")
    server.join(20)

    waits = sorted(seconds)
    figures = {
        "model": options.model,
        "clients": options.clients,
        "requests": options.clients * options.rounds,
        "became": dict(became),
        "pictures_per_second": round(len(waits) / took, 2),
        "seconds_median": round(waits[len(waits) // 2], 2) if waits else None,
        "seconds_longest": round(waits[-1], 2) if waits else None,
        "memory_mb_before_and_after_each_round": [round(m) for m in memory],
        "machine": f"{platform.processor() or platform.machine()}, Python {platform.python_version()}",
    }
    print(json.dumps(figures, indent=2))
    if options.out:
        write_result(options.out, figures)


if __name__ == "__main__":
    main()
