"""Average the weights of two checkpoints of one architecture, of which one was trained on from the other.

    python train/average.py SECOND_RELEASE runs/tiny3/final --share 0.7 --out runs/tiny3/averaged

SECOND_RELEASE is the folder of sdg-tiny's second release; train/configs/sft_tiny_3.yaml says where it comes from.
Training on other pictures costs some of what was learnt before; between the two weights lie models that keep most of
both (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"). Which share is best is for validation to say.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="checkpoint folder")
    parser.add_argument("second", type=Path, help="checkpoint folder, whose other files are copied")
    parser.add_argument("--share", type=float, default=0.5, help="of the second, 0..1")
    parser.add_argument("--out", type=Path, required=True, help="folder; must not exist")
    args = parser.parse_args()

    if not 0 <= args.share <= 1:
        parser.error(f"--share {args.share} is not in 0..1")
    first, second = load_file(args.first / WEIGHTS), load_file(args.second / WEIGHTS)
    shapes = [{name: tensor.shape for name, tensor in weights.items()} for weights in (first, second)]
    if shapes[0] != shapes[1]:
        parser.error(f"{args.first} and {args.second} have weights of other names or shapes")
    mixed = {
        name: first[name].float().lerp(tensor.float(), args.share).to(tensor.dtype) for name, tensor in second.items()
    }
    shutil.copytree(args.second, args.out)
    with safe_open(args.second / WEIGHTS, "pt") as file:
        save_file(mixed, args.out / WEIGHTS, metadata=file.metadata())


if __name__ == "__main__":
    main()
