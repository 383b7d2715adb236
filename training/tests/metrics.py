"""Writes metrics.json: metrics of random predictions by scikit-learn and NumPy, to compare with.

Run: python training/tests/metrics.py (needs numpy and scikit-learn).
"""

import json
from pathlib import Path

import numpy as np
from sklearn.metrics import label_ranking_average_precision_score, log_loss, roc_auc_score
from sklearn.metrics import top_k_accuracy_score

random = np.random.default_rng(20150827)
classes, photographs = 12, 80
truth = random.integers(0, classes, photographs)
logits = random.normal(size=(photographs, classes))
logits[np.arange(photographs), truth] += 1.5
probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

confidence = probabilities.max(axis=1)
right = probabilities.argmax(axis=1) == truth
edges = np.linspace(0, 1, 16)
bins = np.digitize(confidence, edges, right=True)
calibration_error = sum(
    abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean()
    for b in np.unique(bins)
)

# With one right answer the average precision is the reciprocal rank; beyond rank 5 it counts 0.
one_hot = np.eye(classes, dtype=int)[truth]
precision = [
    label_ranking_average_precision_score(one_hot[i : i + 1], probabilities[i : i + 1])
    for i in range(photographs)
]
map_5 = np.mean([p if p >= 1 / 5 - 1e-9 else 0 for p in precision])

positives = np.round(random.normal(0.6, 0.3, 40), 1)
negatives = np.round(random.normal(0.3, 0.3, 50), 1)
labels = list(range(classes))
result = {
    "probabilities": probabilities.tolist(),
    "truth": truth.tolist(),
    "top_1": top_k_accuracy_score(truth, probabilities, k=1, labels=labels),
    "top_5": top_k_accuracy_score(truth, probabilities, k=5, labels=labels),
    "map_5": map_5,
    "log_loss": log_loss(truth, probabilities, labels=labels),
    "calibration_error": calibration_error,
    "positives": positives.tolist(),
    "negatives": negatives.tolist(),
    "auroc": roc_auc_score([1] * 40 + [0] * 50, np.concatenate([positives, negatives])),
    "median": np.median(positives),
    "percentile_90": np.quantile(positives, 0.9),
}
Path(__file__).with_suffix(".json").write_text(json.dumps(result) + "\n")
