"""The trainer on tiny pipelines: what it learns, what it refuses, and the traps between TRL and diffusers."""

import copy
import logging

import numpy as np
import pytest
import tiny_pipelines
import torch
from datasets import Dataset
from diffusers import StableDiffusion3Pipeline
from peft import LoraConfig, PeftModel
from PIL import Image
from safetensors.torch import load_file

from sdg import BoxFlowGRPOConfig, BoxFlowGRPOTrainer, Defect, DefectSet

PROMPTS = Dataset.from_dict({"prompt": ["a red car", "a tree", "a green house", "a blue tree"]})
SMALL = {
    "height": 32,
    "width": 32,
    "num_generations": 4,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "num_sampling_steps": 4,
    "sde_window": [0, 3],
    "guidance_scale": 1.0,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "logging_steps": 1,
    "save_strategy": "no",
    "ema_decay": 0.0,
    "max_steps": 2,
    "disable_tqdm": True,
}
LORA = LoraConfig(r=4, lora_alpha=16)


def brightness(images, prompts):
    return [float(np.asarray(image).mean()) / 255 for image in images]


class Finds:
    """A detector that sees the same defects in every second picture."""

    def __init__(self, *defects, every=2):
        self.defects, self.every = defects, every

    def __call__(self, images, captions, batch_size):
        assert len(images) == len(captions)
        return [DefectSet(self.defects if i % self.every else ()) for i in range(len(images))]


BOX = Defect((0, 0, 500, 500), "artifact", "a smear", 80)


def build(folder, pipeline=None, rewards=brightness, detector=None, peft=LORA, eval_dataset=None, heatmap=None, **args):
    config = BoxFlowGRPOConfig(str(folder), **{**SMALL, "advantage": "box" if detector else "scalar", **args})
    return BoxFlowGRPOTrainer(
        pipeline or tiny_pipelines.sd3(),
        rewards,
        config,
        train_dataset=PROMPTS,
        eval_dataset=eval_dataset,
        detector=detector,
        heatmap=heatmap,
        peft_config=peft,
    )


def rows(trainer, prompts=("a red car",)):
    """A generation batch, as TRL's sampler gives it."""
    return [{"prompt": p} for p in prompts for _ in range(trainer.num_generations)]


def batch(trainer, prompts=("a red car",)):
    trainer.model.train()
    return trainer._generate_and_score_completions(rows(trainer, prompts))


def history(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


# What it refuses.


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"temperature": 0.5}, "temperature=0.5 is a setting of GRPOConfig for text"),
        ({"use_vllm": True}, "use_vllm=True"),
        ({"vllm_mode": "server"}, "vllm_mode='server'"),
        ({"loss_type": "dapo2"}, "loss_type='dapo2'.*another loss"),
        ({"max_completion_length": 7}, "max_completion_length=7"),
        ({"sync_ref_model": True, "beta": 0.1}, "sync_ref_model=True"),
        ({"trust_remote_code": True}, "trust_remote_code=True"),
        ({"num_generations": 1}, "at least 2"),
        ({"advantage": "boxes"}, "advantage='boxes' is none of box, scalar, heatmap"),
        ({"dynamics": "ode"}, "needs a stochastic step"),
        ({"noise_level": 0.0}, "noise_level=0.0 must be above 0"),
        ({"sde_window": [2, 9]}, "within the num_sampling_steps=4 steps"),
        ({"sde_window": [1, 2], "sde_steps": 2}, "cannot give sde_steps=2"),
        ({"sde_window": [1, 4], "dynamics": "cps"}, "the last step, which has no noise under cps"),
        ({"ema_decay": 1.0}, "ema_decay=1.0"),
        ({"rollout_batch_size": 0}, "rollout_batch_size=0 must be at least 1"),
        ({"detector_batch_size": -1}, "detector_batch_size=-1"),
        ({"num_sampling_steps": 0}, "num_sampling_steps=0"),
        ({"c_artifact": -0.5}, "c_artifact=-0.5 is negative"),
        ({"max_unreadable_share": 2.0}, "max_unreadable_share=2.0"),
        ({"importance_sampling_level": "word"}, "importance_sampling_level='word'"),
    ],
)
def test_settings_that_mean_nothing_or_are_out_of_range_are_refused(tmp_path, args, message):
    with pytest.raises(ValueError, match=message):
        BoxFlowGRPOConfig(str(tmp_path), **{**SMALL, **args})


def test_what_cannot_work_is_refused_before_time_is_spent(tmp_path):
    with pytest.raises(ValueError, match="advantage='box' needs a detector"):
        build(tmp_path, advantage="box")
    with pytest.raises(ValueError, match="multiple of 16"):
        build(tmp_path, height=40)
    with pytest.raises(ValueError, match="reward_funcs is empty"):
        build(tmp_path, rewards=[])
    pipeline = tiny_pipelines.sd3()
    pipeline.__class__ = type("CogPipeline", (StableDiffusion3Pipeline,), {})
    with pytest.raises(ValueError, match="CogPipeline has no policy"):
        build(tmp_path, pipeline)
    config = BoxFlowGRPOConfig(str(tmp_path), advantage="scalar", **SMALL)
    for data, message in (
        (None, "train_dataset is missing"),
        (Dataset.from_dict({"text": ["a"]}), r"columns \['text'\]"),
        (Dataset.from_dict({"prompt": [[{"role": "user", "content": "a"}]]}), "plain string"),
    ):
        with pytest.raises(ValueError, match=message):
            BoxFlowGRPOTrainer(tiny_pipelines.sd3(), brightness, config, train_dataset=data)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_is_refused_before_a_picture_is_drawn(tmp_path, value):
    trainer = build(tmp_path, rewards=lambda images, prompts: [value] * len(images))
    with pytest.raises(ValueError, match="must give a finite number"):
        trainer.train()
    assert trainer.state.global_step == 0


# Pictures, ratios and advantages.


def test_rewards_get_the_columns_that_they_name(tmp_path):
    seen = {}

    def reward(images, prompts, colour, log_metric):
        seen.update(colour=colour, n=len(images), size=images[0].size)
        log_metric("redness", 0.5)
        return [0.0, 1.0, 2.0, 3.0][: len(images)]

    async def later(images, prompts):
        return [1.0] * len(images)

    trainer = build(tmp_path, rewards=[reward, later], width=64)
    trainer.model.train()
    data = [{"prompt": "a red car", "colour": "red"}] * 4
    trainer._generate_and_score_completions(data)
    assert seen == {"colour": ["red"] * 4, "n": 4, "size": (64, 32)}
    log = trainer._metrics["train"]
    assert log["redness"] == [0.5]
    assert log["rewards/reward/mean"] == [1.5]
    assert log["rewards/later/mean"] == [1.0]
    assert log["reward"] == [2.5]


def test_every_tensor_is_sample_first_float32_and_depends_on_its_index_only(tmp_path):
    trainer = build(tmp_path, detector=Finds(BOX), sde_steps=2, rollout_batch_size=3)
    tensors = batch(trainer, ("a red car", "a tree"))
    assert {len(tensor) for tensor in tensors.values()} == {8}
    assert tensors["x"].shape == (8, 2, 4, 4, 4)
    assert tensors["log_probs"].shape == (8, 2, 4, 4)
    assert all(tensors[name].dtype == torch.float32 for name in ("x", "next_x", "log_probs", "advantages"))
    again = build(tmp_path, detector=Finds(BOX), sde_steps=2, rollout_batch_size=8)
    torch.testing.assert_close(batch(again, ("a red car", "a tree"))["next_x"], tensors["next_x"])


@pytest.mark.parametrize("dynamics", ["flow_sde", "dance_sde", "cps"])
@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_the_first_pass_has_ratios_of_one_whatever_the_micro_batches(tmp_path, family, dynamics):
    trainer = build(
        tmp_path,
        getattr(tiny_pipelines, family)(),
        detector=Finds(BOX),
        dynamics=dynamics,
        rollout_batch_size=3,
        num_sampling_steps=5,
        width=64,
        guidance_scale=2.0,
    )
    tensors = batch(trainer, ("a red car", "a tree"))
    for part in (slice(0, 5), slice(5, 8)):
        trainer._compute_loss(trainer.model, {name: tensor[part] for name, tensor in tensors.items()})
    for mean, std in zip(trainer._metrics["train"]["ratio/mean"], trainer._metrics["train"]["ratio/std"], strict=True):
        assert abs(mean - 1) < 1e-5
        assert std < 1e-5


def test_without_a_box_box_is_scalar(tmp_path):
    losses = {}
    for kind in ("box", "scalar"):
        trainer = build(tmp_path, detector=Finds(), advantage=kind)
        tensors = batch(trainer)
        tensors["log_probs"] += torch.randn(tensors["log_probs"].shape, generator=torch.manual_seed(0)) * 1e-3
        losses[kind] = trainer._compute_loss(trainer.model, tensors)
        assert tensors["advantages"].abs().max() > 0.1
    torch.testing.assert_close(losses["box"], losses["scalar"])


def test_boxes_lower_the_advantage_where_they_are(tmp_path):
    trainer = build(tmp_path, detector=Finds(BOX))
    boxed, scalar = batch(trainer)["advantages"], batch(build(tmp_path))["advantages"]
    change = boxed - scalar
    assert (change[1::2, :2, :2] < 0).all()
    assert (change[::2, :2, :2] > 0).all()
    torch.testing.assert_close(boxed[:, 2:], scalar[:, 2:])


def test_packed_tokens_get_their_own_cells(tmp_path):
    trainer = build(tmp_path, tiny_pipelines.flux(), detector=Finds(BOX), width=64)
    tensors = batch(trainer)
    assert tensors["advantages"].shape == (4, 2 * 4)
    assert tensors["log_probs"].shape == (4, 1, 2 * 4)


def test_a_heatmap_masks_the_loss(tmp_path):
    default = batch(build(tmp_path, detector=Finds(BOX, every=1), advantage="heatmap"))
    assert torch.equal(default["weights"][:, :2, :2], torch.full((4, 2, 2), 1.0))  # i % 1 is 0: nothing found
    boxes = batch(build(tmp_path, detector=Finds(BOX), advantage="heatmap"))
    torch.testing.assert_close(boxes["weights"][1, :2, :2], torch.full((2, 2), 0.2))
    assert torch.equal(boxes["weights"][1, 2:], torch.ones(2, 4))
    own = build(tmp_path, advantage="heatmap", heatmap=lambda images: np.ones((len(images), 7, 9)))
    tensors = batch(own)
    assert own._compute_loss(own.model, tensors).item() == 0
    torch.testing.assert_close(tensors["advantages"], batch(build(tmp_path))["advantages"])


def test_one_ratio_a_picture_is_the_mean_of_its_locations(tmp_path):
    trainer = build(tmp_path, importance_sampling_level="sequence", epsilon=10.0)
    tensors = batch(trainer)
    shift = torch.randn(tensors["log_probs"].shape, generator=torch.manual_seed(0)) * 0.1
    tensors["log_probs"] -= shift
    loss = trainer._compute_loss(trainer.model, tensors)
    ratio = shift.flatten(1).mean(1).exp()
    torch.testing.assert_close(loss, -(ratio * tensors["advantages"][:, 0, 0]).mean(), rtol=1e-4, atol=1e-6)


def test_clipping_is_counted_and_stops_the_gradient(tmp_path):
    trainer = build(tmp_path, epsilon=0.01)
    tensors = batch(trainer)
    tensors["advantages"] = torch.ones_like(tensors["advantages"])
    tensors["log_probs"] -= 0.5
    loss = trainer._compute_loss(trainer.model, tensors)
    torch.testing.assert_close(loss, torch.tensor(-1.01))
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in trainer.model.parameters())
    assert trainer._metrics["train"]["clip_ratio/high_mean"] == [1.0]


def test_unreadable_answers_are_counted_and_stop_the_run(tmp_path):
    def detector(images, captions, batch_size):
        return [DefectSet((), parse_error="no list" if i else None) for i in range(len(images))]

    trainer = build(tmp_path, detector=detector, max_unreadable_share=0.8)
    batch(trainer)
    assert trainer._metrics["train"]["defects/unreadable"] == [0.75]
    strict = build(tmp_path, detector=detector)
    with pytest.raises(RuntimeError, match=r"3 of 4 pictures could not be read \(the first: no list\)"):
        batch(strict)


def test_dropout_of_a_lora_is_off(tmp_path):
    trainer = build(tmp_path, peft=LoraConfig(r=4, lora_alpha=8, lora_dropout=0.5))
    tensors = batch(trainer)
    trainer._compute_loss(trainer.model, tensors)
    assert trainer._metrics["train"]["ratio/std"][0] < 1e-6


# KL and reference.


@pytest.mark.parametrize("peft", [LORA, None], ids=["lora", "full"])
def test_kl_is_against_the_start(tmp_path, peft):
    trainer = build(tmp_path, peft=peft, beta=0.5)
    tensors = batch(trainer)
    trainer._compute_loss(trainer.model, tensors)
    with torch.no_grad():
        for p in (p for p in trainer.model.parameters() if p.requires_grad):
            p.add_(torch.randn(p.shape, generator=torch.manual_seed(1)) * 0.05)
    trainer._compute_loss(trainer.model, batch(trainer))
    start, moved = trainer._metrics["train"]["kl"]
    assert start < 1e-10
    assert moved > 1e-6


# Learning, saving, evaluating.


def test_it_keeps_the_pretrained_weights_and_trains_no_others(tmp_path):
    pipeline = tiny_pipelines.sd3()
    before = copy.deepcopy(pipeline.transformer.state_dict())
    trainer = build(tmp_path, pipeline, peft=None)
    for name, value in pipeline.transformer.state_dict().items():
        assert torch.equal(value, before[name]), name
    trainable = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert trainable == {name for name, _ in trainer.model.named_parameters()}
    assert not any(p.requires_grad for p in pipeline.vae.parameters())
    assert not any(p.requires_grad for p in pipeline.text_encoder.parameters())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_learns_to_draw_brighter_pictures(tmp_path, checkpointing):
    trainer = build(
        tmp_path,
        peft=None,
        max_steps=16,
        learning_rate=3e-3,
        lr_scheduler_type="constant",
        sde_steps=3,
        noise_level=1.0,
        num_generations=8,
        per_device_train_batch_size=8,
        gradient_checkpointing=checkpointing,
    )
    trainer.train()
    reward = history(trainer, "reward")
    assert np.mean(reward[-4:]) > np.mean(reward[:4]) + 5 * np.std(reward[:4])
    assert {
        "seconds/rollout",
        "seconds/decode",
        "seconds/rewards",
        "frac_reward_zero_std",
        "clip_ratio/low_mean",
    } <= set(trainer.state.log_history[0])


def test_several_passes_over_the_pictures_reuse_them(tmp_path):
    calls = []

    def reward(images, prompts):
        calls.append(len(images))
        return brightness(images, prompts)

    trainer = build(tmp_path, rewards=reward, num_iterations=2, max_steps=4, learning_rate=1e-2)
    trainer.train()
    assert calls == [1, 4, 4]  # the grey picture, then twice
    assert max(history(trainer, "ratio/std")) > 1e-6


def test_a_saved_lora_draws_the_same_in_diffusers_and_peft(tmp_path):
    trainer = build(tmp_path / "run", learning_rate=5e-2)
    trainer.train()
    trainer.save_model(str(tmp_path / "out"))

    def draw(pipeline):
        pipeline.set_progress_bar_config(disable=True)
        options = {"height": 32, "width": 32, "num_inference_steps": 2, "guidance_scale": 1.0, "output_type": "np"}
        return pipeline("a red car", generator=torch.Generator().manual_seed(0), **options).images

    trained = draw(trainer.policy.pipeline)
    plain = draw(tiny_pipelines.sd3())
    by_diffusers = tiny_pipelines.sd3()
    by_diffusers.load_lora_weights(str(tmp_path / "out" / "lora"))
    by_peft = tiny_pipelines.sd3()
    by_peft.transformer = PeftModel.from_pretrained(by_peft.transformer, str(tmp_path / "out" / "lora"))
    assert np.abs(trained - plain).max() > 1e-3
    np.testing.assert_allclose(draw(by_diffusers), trained, atol=1e-6)
    np.testing.assert_allclose(draw(by_peft), trained, atol=1e-6)


def test_all_weights_are_saved_as_diffusers_saves_a_transformer(tmp_path):
    pipeline = tiny_pipelines.sd3()
    trainer = build(tmp_path, pipeline, peft=None, learning_rate=1e-2)
    trainer.train()
    trainer.save_model()
    loaded = type(pipeline.transformer).from_pretrained(tmp_path / "transformer")
    for name, value in pipeline.transformer.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_the_average_is_evaluated_and_saved_and_goes_on_after_a_resume(tmp_path):
    options = {"ema_decay": 0.9, "learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    trainer = build(tmp_path / "a", **options)
    trainer.train()
    kept = load_file(tmp_path / "a" / "checkpoint-4" / "ema.safetensors")
    last = dict(trainer.model.named_parameters())
    assert any((kept[name] - last[name]).abs().max() > 1e-4 for name in kept)
    with trainer.average:
        assert all(torch.equal(kept[name], last[name]) for name in kept)
    assert any((kept[name] - last[name]).abs().max() > 1e-4 for name in kept)
    again = build(tmp_path / "a", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    after = load_file(tmp_path / "a" / "checkpoint-4" / "ema.safetensors")
    for name, value in kept.items():
        torch.testing.assert_close(after[name], value)


def test_a_resumed_run_repeats_the_curve_and_saves_wait_for_a_boundary(tmp_path):
    options = {
        "num_iterations": 2,
        "gradient_accumulation_steps": 2,
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 3,
        "learning_rate": 1e-2,
    }
    whole = build(tmp_path / "a", **options)
    whole.train()
    folders = sorted(path.name for path in (tmp_path / "a").glob("checkpoint-*"))
    assert folders == ["checkpoint-4", "checkpoint-6"]  # 3 lies amid a batch of pictures
    resumed = build(tmp_path / "b", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-4"))
    for key in ("loss", "reward", "grad_norm", "ratio/std"):
        assert history(resumed, key)[-2:] == history(whole, key)[-2:], key


def test_an_evaluation_is_noiseless_repeatable_and_drawn(tmp_path):
    trainer = build(
        tmp_path, detector=Finds(BOX), eval_dataset=PROMPTS.select(range(2)), panel_images=3, eval_sampling_steps=3
    )
    first, second = trainer.evaluate(), trainer.evaluate()
    assert first["eval_reward"] == second["eval_reward"]
    assert first["eval_defects/artifact_boxes"] == 0.5
    panel = Image.open(tmp_path / "panels" / "step_000000.png")
    assert len(panel.getcolors(maxcolors=10**6)) > 50


@pytest.mark.parametrize("offload", [False, True])
def test_text_encoders_leave_main_memory_only_to_encode(tmp_path, monkeypatch, offload):
    """On a CPU both places are one device: what is looked at is when encoders are sent where."""
    trainer = build(tmp_path, offload_text_encoders=offload)
    sent = []
    encoder, encode = type(trainer.policy.pipeline.text_encoder), type(trainer.policy).encode
    monkeypatch.setattr(encoder, "to", lambda self, device: sent.append(str(device)))
    monkeypatch.setattr(type(trainer.policy), "encode", lambda *args: sent.append("encode") or encode(*args))
    batch(trainer)
    here = [str(trainer.accelerator.device)] * 2  # the two CLIP encoders
    assert sent == ([*here, "encode", "cpu", "cpu"] if offload else ["encode"])


def test_phases_of_training_and_evaluation_are_counted_apart(tmp_path):
    trainer = build(tmp_path, eval_dataset=PROMPTS.select(range(2)))
    batch(trainer)
    trained = dict(trainer._seconds["train"])
    metrics = trainer.evaluate()
    assert trainer._seconds["train"] == trained
    assert trained.keys() == {"encode", "rollout", "decode", "rewards"}
    assert metrics["eval_seconds/rollout"] > 0


def test_bf16_weights_keep_float32_latents_and_log_probabilities(tmp_path):
    pipeline = tiny_pipelines.sd3().to(torch.bfloat16)
    trainer = build(tmp_path, pipeline, max_steps=1)
    tensors = batch(trainer)
    assert tensors["x"].dtype == tensors["log_probs"].dtype == torch.float32
    trainer.train()
    assert np.isfinite(history(trainer, "loss")[0])


def test_nothing_asks_the_hub(tmp_path, caplog, recwarn):
    trainer = build(tmp_path, save_strategy="steps", save_steps=1, max_steps=1)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert not [w for w in recwarn if "remote file" in str(w.message)]
