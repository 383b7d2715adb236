"""The peer of `callosity identify`: the same bundle and the same steps with OpenCV, NumPy and onnxruntime.

Decodes each photograph whole, as such scripts do, or with --reduced first as small as the finder's first look needs, as
OpenCV can, and whole only where that look sees something; letterboxes it for the finder, reads the peaks of the
heat map, looks at them once more, larger and mirrored, refines landmarks with the aligner's rounds and
views, cuts head crops, averages the ensemble's views, compares them with the gallery, and prints one line
of JSON for each photograph in the format of `callosity identify --format jsonl`. Needs the packages of
tests/requirements.txt.
"""

import argparse
import json
import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from safetensors.numpy import load_file

# As in the program on a CPU: more only takes memory.
LARGEST_BATCH = 2
MID_GREY = (128, 128, 128)
BLACK = (0, 0, 0)
# Turn in radians, factor of lengths, shift across and down as fractions of the side, shear.
VARIATIONS = [
    (0.10, 1.00, 0.00, 0.00, 0.0),
    (-0.10, 1.00, 0.00, 0.00, 0.0),
    (0.00, 1.08, 0.03, 0.03, 0.0),
    (0.00, 0.93, -0.03, -0.03, 0.0),
    (0.00, 1.00, 0.04, -0.04, 0.05),
    (0.00, 1.00, -0.04, 0.04, -0.05),
    (0.20, 0.95, 0.02, 0.00, 0.0),
    (-0.20, 1.05, -0.02, 0.00, 0.0),
    (0.05, 1.10, 0.00, -0.05, 0.0),
    (-0.05, 0.90, 0.00, 0.05, 0.0),
    (0.30, 1.00, 0.00, 0.00, 0.03),
    (-0.30, 1.00, 0.00, 0.00, -0.03),
]


def translation(x, y):
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def scaling(x, y):
    return np.diag([x, y, 1.0])


def rotation(angle):
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def chain(*steps):
    """The transform that applies the steps from left to right."""
    result = np.eye(3)
    for step in steps:
        result = step @ result
    return result


def apply(transform, points):
    return points @ transform[:2, :2].T + transform[:2, 2]


def aligner_view(index, width, height):
    varied = variation(index // 2, width, height)
    mirrored = chain(translation(0, -height / 2), scaling(1, -1), translation(0, height / 2))
    return chain(varied, mirrored) if index % 2 else varied


def variation(index, width, height):
    if index == 0:
        return np.eye(3)
    turn, scale, across, down, shear = VARIATIONS[(index - 1) % len(VARIATIONS)]
    strength = 1.0 + (index - 1) // len(VARIATIONS)
    sheared = np.array([[1, shear * strength, 0], [0, 1, 0], [0, 0, 1.0]])
    return chain(
        translation(-width / 2, -height / 2),
        rotation(turn * strength),
        sheared,
        scaling(scale**strength, scale**strength),
        translation(width / 2, height / 2),
        translation(across * strength * width, down * strength * height),
    )


def ensemble_view(index, width, height, strength=0.4):
    full = variation(index, width, height)
    centre = np.array([width / 2, height / 2])
    moved = (apply(full, centre) - centre) * strength
    turned = np.eye(3)
    turned[:2, :2] += strength * (full[:2, :2] - np.eye(2))
    return chain(translation(*-centre), turned, translation(*centre), translation(*moved))


def finder_view(index, width, height):
    mirrored = scaling(-1 if index & 1 else 1, -1 if index & 2 else 1)
    return chain(translation(-width / 2, -height / 2), mirrored, translation(width / 2, height / 2))


def warp(image, output_from_image, width, height, fill):
    """Coordinates have pixel centres at +0.5; OpenCV has them at whole numbers."""
    stretch = np.linalg.svd(output_from_image[:2, :2], compute_uv=False)[1]
    factor = math.floor(1 / max(stretch, 1e-9) / 1.5)
    if factor >= 2:
        # What is shrunk a lot is averaged first, or it aliases.
        corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], float)
        corners = apply(np.linalg.inv(output_from_image), corners)
        limit = np.array([image.shape[1], image.shape[0]])
        low = np.clip(np.floor(corners.min(0)) - 2 * factor, 0, limit).astype(int)
        high = np.clip(np.ceil(corners.max(0)) + 2 * factor, 0, limit).astype(int)
        size = (high - low) // factor
        if (size > 0).all():
            high = low + size * factor
            region = image[low[1] : high[1], low[0] : high[0]]
            image = cv2.resize(region, tuple(map(int, size)), interpolation=cv2.INTER_AREA)
            output_from_image = chain(
                scaling(factor, factor), translation(*low), output_from_image
            )
    half = translation(-0.5, -0.5)
    matrix = chain(np.linalg.inv(half), output_from_image, half)[:2]
    return cv2.warpAffine(
        image,
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )


class Network:
    def __init__(self, bundle, declared, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(bundle / declared["file"]), options, providers=["CPUExecutionProvider"]
        )
        self.input = declared["input"]
        self.output = declared["output"]
        self.width, self.height = self.input["width"], self.input["height"]
        self.mean = np.array(self.input["mean"], np.float32).reshape(3, 1, 1)
        self.std = np.array(self.input["std"], np.float32).reshape(3, 1, 1)

    def prepare(self, bgr):
        planes = bgr[:, :, ::-1].transpose(2, 0, 1).astype(np.float32)
        return (planes / np.float32(255) - self.mean) / self.std

    def run(self, images):
        return self.run_for(images, [self.output])[0]

    def run_for(self, images, names):
        """Each of the named outputs."""
        outputs = []
        for start in range(0, len(images), LARGEST_BATCH):
            batch = np.stack(images[start : start + LARGEST_BATCH])
            outputs.append(self.session.run(names, {self.input["name"]: batch}))
        return [np.concatenate(of_batches) for of_batches in zip(*outputs)]


class Gallery:
    def __init__(self, bundle, declared, individuals):
        tensors = load_file(bundle / declared["file"])
        embeddings = tensors["embedding"].astype(np.float32)
        self.embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        self.individual = tensors["individual"].astype(int)
        self.model = declared["neighbours"]
        self.known = len(individuals)
        self.individuals = individuals + declared.get("enrolled", [])
        self.statistics = None

    @staticmethod
    def mean(embeddings):
        mean = embeddings.astype(np.float64).sum(0)
        return mean / max(np.linalg.norm(mean), 1e-30)

    def nearest(self, mean):
        nearest = np.full(len(self.individuals), -np.inf)
        np.maximum.at(nearest, self.individual, self.embeddings @ mean)
        return nearest

    def features(self, mean):
        """What tells strangers, of a head's embedding."""
        if self.statistics is None:
            self.statistics = self.count()
        cohort_mean, cohort_deviation, means, centre, precision = self.statistics
        first, second = np.sort(self.nearest(mean))[::-1][:2]
        relative = (self.embeddings @ mean - cohort_mean) / cohort_deviation
        return {
            "similarity": first,
            "similarity_gap": first - second,
            "relative_similarity": relative.max(),
            "mean_distance": ((mean - means) ** 2).sum(1).min(),
            "mahalanobis_distance": (mean - centre) @ precision @ (mean - centre),
        }

    def count(self):
        catalogue = self.individual < self.known
        own = self.embeddings[catalogue]
        cosines = np.where(
            self.individual[:, None] == self.individual[catalogue], np.nan, self.embeddings @ own.T
        )
        cohort = -np.sort(-cosines, axis=1)[:, :100]
        deviation = np.maximum(np.nanstd(cohort, axis=1), 0.01)
        met = np.unique(self.individual)
        means = np.stack([self.embeddings[self.individual == i].mean(0) for i in met])
        centre = own.astype(np.float64).mean(0)
        covariance = np.cov(own.T.astype(np.float64), bias=True)
        ridge = np.trace(covariance) / len(centre)
        precision = np.linalg.inv(covariance + ridge * np.eye(len(centre)))
        return np.nanmean(cohort, axis=1), deviation, means, centre, precision

    def blend(self, scaled, embeddings):
        """From the catalogue's logits of each view, over the temperature, to those of all individuals."""
        nearest = self.nearest(self.mean(embeddings))
        neighbour = self.model["intercept"] + self.model["slope"] * nearest
        share, known = self.model["share"], self.known
        blended = np.where(
            np.isfinite(neighbour[:known]), (1 - share) * scaled + share * neighbour[:known], scaled
        )
        enrolled = np.broadcast_to(neighbour[known:], (len(scaled), len(neighbour) - known))
        return np.concatenate([blended, enrolled], axis=1)


def length(landmarks):
    return float(np.linalg.norm(landmarks[0] - landmarks[1]))


def apart(landmarks, truth):
    """Mean distance of the landmarks, in head lengths of the second pair."""
    return np.linalg.norm(landmarks - truth, axis=1).mean() / max(length(truth), 1e-9)


class Identifier:
    def __init__(self, bundle, threads):
        self.manifest = json.loads((bundle / "manifest.json").read_text())
        m = self.manifest
        self.finder = Network(bundle, m["finder"]["network"], threads)
        self.aligner = Network(bundle, m["aligner"]["network"], threads) if m["aligner"] else None
        self.ensemble = Network(bundle, m["ensemble"]["network"], threads)
        individuals = m["catalogue"]["individuals"]
        self.gallery = Gallery(bundle, m["gallery"], individuals) if m.get("gallery") else None

    def first_look(self, image):
        """Heads at first sight, in pixels of the finder's input, and where that lies in the frame."""
        finder, net = self.manifest["finder"], self.finder
        rows, columns = image.shape[:2]
        scale = min(net.width / columns, net.height / rows)
        input_from_frame = chain(
            scaling(scale, scale),
            translation((net.width - scale * columns) / 2, (net.height - scale * rows) / 2),
        )
        cut = warp(image, input_from_frame, net.width, net.height, MID_GREY)
        look = finder.get("closer_look")
        threshold = look["candidate_threshold"] if look else finder["threshold"]
        return self.peaks(finder, net.run([net.prepare(cut)])[0], threshold), input_from_frame

    def find(self, image):
        finder = self.manifest["finder"]
        rows, columns = image.shape[:2]
        look = finder.get("closer_look")
        heads, input_from_frame = self.first_look(image)
        frame_from_input = np.linalg.inv(input_from_frame)
        heads = [(confidence, apply(frame_from_input, at)) for confidence, at in heads]
        if look and heads:
            heads = self.look_closer(finder, look, image, input_from_frame, heads)
        inside = lambda at: ((at.mean(0) >= 0) & (at.mean(0) < [columns, rows])).all()
        return [head for head in heads if inside(head[1])]

    def look_closer(self, finder, look, image, input_from_frame, peaks):
        net, whole = self.finder, input_from_frame[0, 0]
        frame, size = np.array(image.shape[1::-1], float), np.array([net.width, net.height], float)
        candidates = []

        def part(at, head_length):
            scale = max(head_length / length(at), whole)
            low = np.minimum(size - frame * scale, 0)
            shift = np.clip(size / 2 - at.mean(0) * scale, low, 0)
            shift = np.where(frame * scale <= size, (size - frame * scale) / 2, shift)
            return chain(scaling(scale, scale), translation(*shift))

        for confidence, at in peaks:
            first = np.clip(confidence, 1e-6, 1 - 1e-6)
            candidates.append(
                {
                    "at": at,
                    "first": [math.log(first / (1 - first))],
                    "closer": [],
                    "landmarks": [],
                }
            )
        enough = min(look["candidate_threshold"], finder["threshold"])
        views, first_length = look.get("views", 1), look["head_length_pixels"]
        further = [(n, range(views)) for n in look.get("further_head_lengths_pixels", [])]
        glance, in_full = [(first_length, range(1))], [(first_length, range(1, views)), *further]
        for views_of_whole, parts in [(range(0), glance), (range(1, views), in_full)]:
            for cut, heat in self.see(image, input_from_frame, views_of_whole if candidates else []):
                for candidate in candidates:
                    seen = self.glimpse(finder, heat, cut, candidate["at"])
                    candidate["first"] += [seen[0]] if seen else []
            for candidate in candidates:
                for cut, heat in [
                    seen
                    for head_length, views_of_part in parts
                    for seen in self.see(image, part(candidate["at"], head_length), views_of_part)
                ]:
                    seen = self.glimpse(finder, heat, cut, candidate["at"])
                    if seen is None:
                        continue
                    candidate["closer"].append(seen[0])
                    if seen[1] is not None and apart(seen[1], candidate["at"]) <= 0.5:
                        candidate["landmarks"].append(seen[1])
            candidates = [c for c in candidates if self.both_looks(c) >= enough]
        heads = [
            (self.both_looks(c), np.mean(c["landmarks"], axis=0) if c["landmarks"] else c["at"])
            for c in candidates
        ]
        return self.suppress(finder, [head for head in heads if head[0] >= finder["threshold"]])

    def see(self, image, cut, views):
        if not views:
            return []
        net = self.finder
        cuts = [chain(cut, finder_view(view, net.width, net.height)) for view in views]
        seen = net.prepare(warp(image, cut, net.width, net.height, MID_GREY))
        inputs = [seen[:, :: -1 if v // 2 % 2 else 1, :: -1 if v % 2 else 1] for v in views]
        return list(zip(cuts, net.run(inputs)))

    def glimpse(self, finder, heat, cut, at):
        """The highest logit near a candidate, and the landmarks in the frame that are seen there."""
        stride, logits, here = finder["stride"], heat[0], apply(cut, at)
        rows, columns = np.indices(logits.shape)
        middles = np.stack([(columns + 0.5) * stride, (rows + 0.5) * stride], axis=-1)
        reach = max(0.5 * length(here), stride)
        near = np.linalg.norm(middles - here.mean(0), axis=-1) <= reach
        if not near.any():
            return None
        r, c = np.unravel_index(np.argmax(np.where(near, logits, -np.inf)), logits.shape)
        head = self.head_at(finder, heat, r, c)
        return float(logits[r, c]), None if head is None else apply(np.linalg.inv(cut), head[1])

    @staticmethod
    def both_looks(candidate):
        if not candidate["closer"]:
            return 0.0
        logit = (np.mean(candidate["first"]) + np.mean(candidate["closer"])) / 2
        return 1 / (1 + math.exp(-logit))

    def peaks(self, finder, heat, threshold):
        logits = heat[0]
        sure = 1 / (1 + np.exp(-logits.astype(np.float64)))
        highest = cv2.dilate(logits, np.ones((3, 3), np.uint8))
        heads = [
            self.head_at(finder, heat, r, c)
            for r, c in np.argwhere((logits == highest) & (sure >= threshold))
        ]
        return self.suppress(finder, [head for head in heads if head is not None])

    def head_at(self, finder, heat, r, c):
        """The head that a cell and its neighbours see: confidence, landmarks in pixels of the input."""
        sure = 1 / (1 + np.exp(-heat[0].astype(np.float64)))
        rows, columns = sure.shape
        stride = finder["stride"]

        def landmarks(r, c):
            centre = np.array([(c + 0.5) * stride, (r + 0.5) * stride])
            return np.stack([centre + heat[1:3, r, c], centre + heat[3:5, r, c]])

        peak = landmarks(r, c)
        if not (np.isfinite(peak).all() and length(peak) >= 1):
            return None
        around = [
            (i, j)
            for i in range(max(r - 1, 0), min(r + 2, rows))
            for j in range(max(c - 1, 0), min(c + 2, columns))
        ]
        total, weight = np.zeros((2, 2)), 0.0
        for i, j in around:
            other = landmarks(i, j)
            if sure[i, j] >= 0.5 * sure[r, c] and apart(peak, other) <= 0.25:
                total, weight = total + sure[i, j] * other, weight + sure[i, j]
        return float(sure[r, c]), total / weight if weight else peak

    def suppress(self, finder, found):
        heads = []
        for confidence, at in sorted(found, key=lambda head: -head[0]):
            if len(heads) == finder["maximum_heads"]:
                break
            radius = finder["suppression_radius_head_lengths"]
            if all(
                np.linalg.norm(at.mean(0) - kept.mean(0)) >= radius * length(kept)
                for _, kept in heads
            ):
                heads.append((confidence, at))
        return heads

    def align(self, image, heads):
        if not heads or self.aligner is None:
            return heads
        declared, net = self.manifest["aligner"], self.aligner
        w, h, field = net.width, net.height, declared["field_head_lengths"]
        for round in range(1, declared["rounds"] + 1):
            views = declared["views"] if round == declared["rounds"] else 1
            cuts, inputs = [], []
            for index, (_, at) in enumerate(heads):
                side, along = field * length(at), at[0] - at[1]
                crop = chain(
                    translation(*-at.mean(0)),
                    rotation(-math.atan2(along[1], along[0])),
                    scaling(w / side, h / side),
                    translation(w / 2, h / 2),
                )
                for view in range(views):
                    cut = chain(crop, aligner_view(view, w, h))
                    cuts.append((index, cut))
                    inputs.append(net.prepare(warp(image, cut, w, h, MID_GREY)))
            seen = [[] for _ in heads]
            for (index, cut), output in zip(cuts, net.run(inputs)):
                fractions = output.reshape(2, 2).astype(np.float64)
                seen[index].append(apply(np.linalg.inv(cut), fractions * [w, h]))
            refined = []
            for (confidence, old), views_seen in zip(heads, seen):
                new = np.mean(views_seen, axis=0)
                plausible = (
                    np.isfinite(new).all()
                    and length(new) >= 2
                    and length(old) / 4 <= length(new) <= length(old) * 4
                    and np.linalg.norm(new.mean(0) - old.mean(0)) <= field * length(old) / 2
                )
                refined.append((confidence, new if plausible else old))
            heads = refined
        return heads

    def head_crop(self, at):
        crop, net = self.manifest["ensemble"]["head_crop"], self.ensemble
        along = at[0] - at[1]
        scale = (crop["bonnet_x"] - crop["blowhead_x"]) * net.width / length(at)
        natural_height = net.width / crop["aspect"]
        return chain(
            translation(*-at[1]),
            rotation(-math.atan2(along[1], along[0])),
            scaling(scale, scale),
            translation(crop["blowhead_x"] * net.width, crop["landmark_y"] * natural_height),
            scaling(1, net.height / natural_height),
        )

    def name(self, image, heads, top):
        if not heads:
            return []
        net, decision = self.ensemble, self.manifest["decision"]
        individuals = self.manifest["catalogue"]["individuals"]
        views = self.manifest["ensemble"]["views"]
        inputs = [
            net.prepare(
                warp(
                    image,
                    chain(self.head_crop(at), ensemble_view(view, net.width, net.height)),
                    net.width,
                    net.height,
                    BLACK,
                )
            )
            for _, at in heads
            for view in range(views)
        ]
        names = [net.output]
        if self.gallery:
            names.append(self.manifest["ensemble"]["embedding"]["output"])
        logits, *embeddings = net.run_for(inputs, names)
        logits = logits.astype(np.float64).reshape(len(heads), views, -1) / decision["temperature"]
        if self.gallery:
            embeddings = embeddings[0].reshape(len(heads), views, -1)
            logits = np.stack([self.gallery.blend(*of) for of in zip(logits, embeddings)])
            individuals = self.gallery.individuals
        highest = logits.max(2, keepdims=True)
        exponentials = np.exp(logits - highest)
        sums = exponentials.sum(2, keepdims=True)
        probabilities = (exponentials / sums).mean(1)
        model = decision["unknown"]
        concentration = np.log((probabilities**2).sum(1))
        free_energy = (highest + np.log(sums)).mean((1, 2))
        if model.get("score") == "concentration":
            score = concentration
        elif model.get("score") == "features":
            entropy = lambda p: -(p * np.log(np.maximum(p, 1e-300))).sum(-1)
            values = {
                "concentration": concentration,
                "free_energy": free_energy,
                "view_agreement": entropy(exponentials / sums).mean(1) - entropy(probabilities),
            }
            if self.gallery:
                of_heads = [self.gallery.features(self.gallery.mean(of)) for of in embeddings]
                values |= {k: np.array([of[k] for of in of_heads]) for k in of_heads[0]}
            score = sum(
                f["weight"] * (values[f["feature"]] - f["mean"]) / f["deviation"]
                for f in model["features"]
            )
        else:
            score = free_energy
        unknown = 1 / (1 + np.exp(-(model["intercept"] + model["slope"] * score)))
        probabilities **= decision.get("power", 1)
        probabilities /= probabilities.sum(1, keepdims=True)
        named = []
        for (confidence, at), row, stranger in zip(heads, probabilities, unknown):
            order = np.argsort(-row, kind="stable")[:top]
            known = decision.get("confidence") == "known_candidate"
            sure = row.max() * (1 - stranger) if known else row.max()
            if stranger >= decision["unknown_threshold"]:
                verdict = "unknown"
            elif sure >= decision["identified_threshold"]:
                verdict = "identified"
            else:
                verdict = "uncertain"
            candidates = [
                {"individual": individuals[i], "probability": float(row[i])} for i in order
            ]
            named.append(
                {
                    "bonnet": at[0].tolist(),
                    "blowhead": at[1].tolist(),
                    "confidence": confidence,
                    "decision": verdict,
                    "unknown_probability": float(stranger),
                    "candidates": candidates,
                }
            )
        return named

    @staticmethod
    def decode(path, how):
        image = cv2.imread(str(path), how)
        if image is None:
            raise ValueError(f"{path}: cannot be decoded")
        return image

    def is_empty(self, path):
        """Whether the first look at a reduced photograph, as large as the finder's input or larger, sees no head."""
        small = self.decode(path, cv2.IMREAD_REDUCED_COLOR_8)
        if small.shape[1] < self.finder.width:
            small = self.decode(path, cv2.IMREAD_REDUCED_COLOR_4)
        return not self.first_look(small)[0]

    def identify_reduced(self, path, top):
        if self.is_empty(path):
            return {"image": str(path), "heads": []}
        return self.identify(path, top)

    def identify(self, path, top):
        clock = [time.perf_counter()]
        lap = lambda: clock.append(time.perf_counter())
        image = self.decode(path, cv2.IMREAD_COLOR)
        lap()
        heads = self.find(image)
        lap()
        heads = self.align(image, heads)
        lap()
        named = self.name(image, heads, top)
        lap()
        milliseconds = [1000 * (b - a) for a, b in zip(clock, clock[1:])]
        return {
            "image": str(path),
            "width": image.shape[1],
            "height": image.shape[0],
            "heads": named,
            "stages_ms": dict(zip(["decode", "find", "align", "identify"], milliseconds)),
            "engine": f"onnxruntime {onnxruntime.__version__} in Python",
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2, help="threads of each network and of OpenCV")
    parser.add_argument("--workers", type=int, default=1, help="photographs at a time")
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--reduced", action="store_true", help="decode whole only where the first look sees something")
    parser.add_argument("--list", action="store_true", help="photographs are named in files, a line each")
    parser.add_argument("photographs", nargs="+", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(args.threads)
    identifier = Identifier(args.bundle, args.threads)
    photographs = args.photographs
    if args.list:
        photographs = [line for file in photographs for line in file.read_text().splitlines()]
    identify = identifier.identify_reduced if args.reduced else identifier.identify
    with ThreadPoolExecutor(args.workers) as pool:
        for line in pool.map(lambda p: identify(p, args.top), photographs):
            print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
