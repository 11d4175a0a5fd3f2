"""Recipes ask for bfloat16; a CPU that only emulates it trains in float32."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from sdg.training import precision
from sdg.training.precision import without_emulated_bf16


@pytest.mark.parametrize(("quick", "expected"), [(torch.float32, "no"), (torch.bfloat16, "bf16")])
def test_bfloat16_is_left_out_where_it_is_emulated(quick, expected, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(precision, "cpu_dtype", lambda: quick)
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, bf16=True)
    without_emulated_bf16(args)
    assert ("quicker in float32" in caplog.text) == (expected == "no")
    trainer = Trainer(model=torch.nn.Linear(2, 2), args=args)
    assert trainer.accelerator.mixed_precision == expected


def test_who_asks_for_float32_gets_it(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(precision, "cpu_dtype", lambda: torch.float32)
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    without_emulated_bf16(args)
    assert args.mixed_precision == "no"
    assert not caplog.text
