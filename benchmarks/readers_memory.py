"""Peak memory of reading a data set, at 3,000 and at 30,000 records.

    python benchmarks/readers_memory.py

Writes a stand-in of SDG-30K, whose records share one small picture file, and reads it in a fresh process for each
size: once decoding pictures, once without, and once while writing the records as parquet. A reading that kept its
records would grow with their number; what is printed is the high-water mark of each process, in MiB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

TASKS = ("decode", "annotations", "convert")


def write(root: Path, n: int) -> None:
    """A stand-in of n records, three defects each, with think text of the length that is usual."""
    (root / "annotations").mkdir(parents=True)
    Image.effect_noise((128, 128), 60).convert("RGB").save(root / "shared.png")
    box = {"box_2d": [100, 200, 300, 700], "label": "artifact", "description": "bent handle " * 12, "importance": 40}
    think = f"<think>{'The picture shows a teapot on a table. ' * 60}</think>\n<answer>[]</answer>"
    with (root / "annotations" / "train.jsonl").open("w") as lines:
        for k in range(n):
            row = {"id": f"record-{k}", "filepath": "shared.png", "caption": "a red teapot", "raw_response": think}
            lines.write(json.dumps(row | {"ann_translated_bboxes": [box] * 3}) + "\n")


def measure(root: Path, task: str) -> dict[str, float]:
    """Records, seconds and peak MiB of this process."""
    from sdg.readers import read
    from sdg.records import write_records

    started = time.perf_counter()
    reading = read(root, images=task == "decode")
    n = write_records(reading, root / "out") if task == "convert" else sum(1 for _ in reading)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"records": n, "seconds": time.perf_counter() - started, "peak_mib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[3_000, 30_000])
    parser.add_argument("--measure", nargs=2, metavar=("ROOT", "TASK"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(Path(args.measure[0]), args.measure[1])))
        return
    print(f"{'':12} {'records':>8} {'seconds':>8} {'peak MiB':>9}")
    for task in TASKS:
        for n in args.records:
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder)
                write(root, n)
                command = [sys.executable, __file__, "--measure", str(root), task]
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"{task:12} {found['records']:8,} {found['seconds']:8.1f} {found['peak_mib']:9.0f}", flush=True)


if __name__ == "__main__":
    main()
