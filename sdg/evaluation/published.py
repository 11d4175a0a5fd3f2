"""Published results as data: rows with the keys of this package's results, to stand beside one's own."""

from __future__ import annotations

from sdg.defects import TYPES

TABLE_2_METRICS = ("det_type_f1", "cln_acc", "box_f1@0.1", "box_f1@0.5", "desc_cos@0.1", "imp_acc@0.1")
"""The columns of the paper's Table 2, for each type."""

TABLE_3_METRICS = ("image_precision", "image_recall", "image_f1")
"""The columns of the paper's Table 3, for each type."""


def _row(metrics: tuple[str, ...], *values: tuple[float, ...]) -> dict[str, float]:
    """Values of artifact, then of misalignment, by key; what was not published is left out."""
    return {
        f"{t}/{metric}": value
        for t, of_type in zip(TYPES, values, strict=True)
        for metric, value in zip(metrics, of_type, strict=False)
    }


TABLE_2 = {
    model: _row(TABLE_2_METRICS, artifact, misalignment)
    for model, artifact, misalignment in (
        ("GPT-5.4, zero-shot", (0.736, 0.118, 0.237, 0.035, 0.868, 0.812), (0.654, 0.513, 0.457, 0.292, 0.837, 0.820)),
        (
            "Gemini 3 Pro, zero-shot",
            (0.733, 0.076, 0.337, 0.200, 0.885, 0.824),
            (0.696, 0.672, 0.464, 0.307, 0.891, 0.851),
        ),
        ("SDG (SFT)", (0.776, 0.697, 0.402, 0.255, 0.904, 0.883), (0.636, 0.799, 0.499, 0.376, 0.893, 0.892)),
        ("SDG (GRPO)", (0.772, 0.560, 0.404, 0.263, 0.904, 0.887), (0.675, 0.732, 0.511, 0.387, 0.888, 0.893)),
        ("human", (0.792, 0.774, 0.462, 0.278), (0.712, 0.818, 0.563, 0.409)),
    )
}
"""Table 2: SDG-30K's test split of 1,151 images. The human row is a second round of annotators, boxes only."""

TABLE_3 = {"SDG": _row(TABLE_3_METRICS, (0.970, 0.698, 0.812), (0.951, 0.500, 0.655))}
"""Table 3: RichHF-18K at image level, without training on it. A picture has a type where its heatmap exceeds 0.33."""
