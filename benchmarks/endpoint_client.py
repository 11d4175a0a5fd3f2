"""What a request costs the client: packing a picture of 1024x1024 as docs/endpoint.md quotes it.

python benchmarks/endpoint_client.py
"""

from __future__ import annotations

import argparse
import time

from PIL import Image
from sklearn.datasets import load_sample_image

from sdg.engines.chat import data_url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=10, help="the fastest of so many counts")
    turns = parser.parse_args().turns
    for name in ("china.jpg", "flower.jpg"):
        photograph = Image.fromarray(load_sample_image(name)).resize((1024, 1024), Image.Resampling.BICUBIC)
        seconds = []
        for _ in range(turns):
            started = time.process_time()
            url = data_url(photograph)
            seconds.append(time.process_time() - started)
        print(f"{name}: {min(seconds):.3f} s of one core, {len(url) / 1e6:.1f} MB sent")


if __name__ == "__main__":
    main()
