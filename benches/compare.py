"""Measures Callosity beside the same work done in Python, in one run on one machine.

Identification: `callosity identify` against python_peer/identify.py (OpenCV, NumPy, onnxruntime) with
the same bundle, networks, photographs, library and threads: frames a second, peak memory, and whether
both name the same whales. Training: `callosity-train bench` against training/benches/pytorch_peer.py.
The two sides take turns, and medians over the rounds are reported, so that what else the machine does
meets both. Writes RESULTS.md beside itself; `make bench` installs and builds what it needs and runs it.
"""

import argparse
import csv
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEER = HERE / "python_peer" / "identify.py"


def run(command, stdin=None, env=None):
    """Standard output, seconds and peak bytes of a program."""
    start = time.perf_counter()
    process = subprocess.Popen(
        list(map(str, command)),
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if not os.environ.get("VERBOSE") else None,
        text=True,
        env=env,
    )
    if stdin:
        process.stdin.write(stdin)
        process.stdin.close()
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"failed with {process.returncode} (VERBOSE=1 shows why): {' '.join(map(str, command))}")
    return output, seconds, usage.ru_maxrss * 1024


def virtual_frames(program, folder, count, width, height):
    """Photographs with one whale and without any, drawn once and kept."""
    if not (folder / "frames.csv").exists():
        print(f"drawing {count} frames of {width} × {height} into {folder}", flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        command = [program, "virtual-survey", "--out", folder, "--frames", count]
        command += ["--frame-width", width, "--frame-height", height, "--heads-per-individual", 1]
        run(command)
    return sorted_by_heads(folder / "frames.csv", folder / "frames")


def composed_frames(trainer, data, folder, count, width):
    """Photographs with one whale each, composed of real heads and water and kept; none without the photographs."""
    if not (data / "heads.csv").exists():
        return []
    if not (folder / "frames.csv").exists():
        print(f"composing {count} frames {width} pixels wide into {folder}", flush=True)
        made = folder.parent / "data"
        made.mkdir(parents=True, exist_ok=True)
        index, split = made / "index.json", made / "split.json"
        run([trainer, "import", data, "--output", index])
        run([trainer, "split", "--index", index, "--output", split])
        command = [trainer, "compose", "--index", index, "--split", split, "--cache", made / "cache"]
        command += ["--validation-frames", "--frame-width", width, "--count", count, "--out", folder]
        run(command)
    return sorted_by_heads(folder / "frames.csv", folder)[0]


def sorted_by_heads(truth, folder):
    heads = {}
    with open(truth, newline="") as file:
        for row in csv.DictReader(file):
            heads.setdefault(row["image"], 0)
            heads[row["image"]] += bool(row["bonnet_x"])
    of = lambda n: [folder / i for i, h in heads.items() if h == n and (folder / i).exists()]
    return of(1), of(0)


def agreement(ours, theirs):
    """How many heads either side saw, how many both saw at the same place, how many of these they gave the
    same name and decision, and the largest distance of a landmark, in head lengths."""
    same_place = same_name = seen = 0
    apart = 0.0
    for a, b in zip(ours, theirs):
        assert a["image"] == b["image"], "both write photographs in the order in which they get them"
        seen += max(len(a["heads"]), len(b["heads"]))
        rest = list(b["heads"])
        for head in a["heads"]:
            distance = lambda o: max(
                sum((p - q) ** 2 for p, q in zip(head[m], o[m])) ** 0.5
                for m in ("bonnet", "blowhead")
            )
            length = sum((p - q) ** 2 for p, q in zip(head["bonnet"], head["blowhead"])) ** 0.5
            nearest = min(rest, key=distance, default=None)
            if nearest is None or distance(nearest) > length / 2:
                continue
            rest.remove(nearest)
            same_place += 1
            apart = max(apart, distance(nearest) / length)
            first = lambda h: h["candidates"][0]["individual"]
            same_name += first(head) == first(nearest) and head["decision"] == nearest["decision"]
    return seen, same_place, same_name, apart


def lines(output):
    return [json.loads(line) for line in output.splitlines() if line.strip()]


class Side:
    def __init__(self, name, command):
        self.name, self.command = name, command
        self.whole, self.start, self.memory, self.answers = [], [], [], []

    def measure(self, frames):
        _, seconds, _ = run(self.command + frames[:1])
        self.start.append(seconds)
        output, seconds, memory = run(self.command + frames)
        self.whole.append(seconds)
        self.memory.append(memory)
        self.answers = lines(output)

    def rate(self, count):
        """Frames a second once it runs: what starting costs counts for neither side."""
        spent = [w - s for w, s in zip(self.whole, self.start)]
        return (count - 1) / statistics.median(spent)

    def whole_rate(self, count):
        return count / statistics.median(self.whole)


def sides(args, bundle, library):
    ours = [args.program, "identify", "--bundle", bundle, "--format", "jsonl", "--onnxruntime", library]
    ours += ["--engine", "onnxruntime", "--providers", "cpu", "--threads", args.threads]
    peer = [sys.executable, PEER, "--bundle", bundle, "--threads", args.threads]
    return [
        Side("`callosity identify`", ours),
        Side("Python, one frame at a time", peer),
        Side(f"Python, {args.threads} frames at a time", peer + ["--workers", args.threads]),
    ]


def identification(args, title, bundle, library, whale, empty):
    print(f"{title}: {len(whale)} frames with a whale, {len(empty)} without", flush=True)
    text = [f"## {title}", ""]
    size = json.loads(run(sides(args, bundle, library)[0].command + whale[:1])[0].splitlines()[0])
    text += [
        f"Bundle `{bundle.name}`, {len(whale)} frames of {size['width']} × {size['height']} and alike, "
        f"one whale in each; {args.threads} threads; {size['engine']}.",
        "",
        "| | frames/s | with starting | peak memory, MB |",
        "|---|---|---|---|",
    ]
    measured = sides(args, bundle, library)
    for _ in range(args.rounds):
        for side in measured:
            side.measure(whale)
    rates = [side.rate(len(whale)) for side in measured]
    memories = [statistics.median(side.memory) for side in measured]
    for side, rate, memory in zip(measured, rates, memories):
        whole = side.whole_rate(len(whale))
        text.append(f"| {side.name} | {rate:.2f} | {whole:.2f} | {memory / 1e6:.0f} |")
    fastest = max(range(1, len(rates)), key=lambda i: rates[i])
    plain = rates[0] / rates[1]
    text.append(
        f"| ours over Python, one at a time | {plain:.2f} | "
        f"{measured[0].whole_rate(1) / measured[1].whole_rate(1):.2f} | {memories[0] / memories[1]:.2f} |"
    )
    text.append(
        f"| ours over the faster Python | {rates[0] / rates[fastest]:.2f} | "
        f"{measured[0].whole_rate(1) / measured[fastest].whole_rate(1):.2f} | "
        f"{memories[0] / memories[fastest]:.2f} |"
    )
    seen, place, names, apart = agreement(measured[0].answers, measured[1].answers)
    text += [
        "",
        f"Of {seen} heads seen by either, {place} were seen by both at the same place (landmarks at most "
        f"{100 * apart:.1f} % of a head length apart), {names} of these with the same name and decision.",
    ]

    text += ["", "| stage | ms a frame (median) | process at most, MB |", "|---|---|---|"]
    command = ["cargo", "bench", "--locked", "-q", "--bench", "stages", "--"]
    if args.stages:
        command = [args.stages]
    command += ["--bundle", bundle, "--onnxruntime", library, "--threads", args.threads]
    stages = lines(run(command + whale[:8], env=dict(os.environ))[0])[-1]
    for stage in stages["stages"]:
        peak = "" if stage["peak_mb"] is None else f"{stage['peak_mb']:.0f}"
        text.append(f"| {stage['stage']} | {stage['ms']:.1f} | {peak} |")
    text += [
        "",
        f"A frame takes {stages['frame_ms']:.1f} ms, of which the networks alone take "
        f"{stages['inference_ms']:.1f} ms: {100 * stages['outside_networks']:.0f} % is our own work "
        f"(one frame at a time, reading the file included).",
    ]
    if empty:
        side = sides(args, bundle, library)[0]
        for _ in range(args.rounds):
            side.measure(empty)
        rate = side.rate(len(empty))
        times = rate / rates[0]
        text.append(f"Frames without a whale: {rate:.2f} a second, {times:.2f} times as many as with one.")
    return text + [""]


def open_water(piece, width, height, random):
    """A frame of water like that of `piece`: parts of it, anywhere from it, that overlap and are blended so that contrast stays
    the same in the overlap (Heitz & Neyret 2018). Mirrored water would do for us and not for the finder: it takes seams
    for something to look at."""
    import cv2
    import numpy as np

    rows, columns = piece.shape[:2]
    shading = cv2.GaussianBlur(piece.astype(np.float32), (0, 0), max(rows, columns) / 4)
    waves = piece - shading
    down, across = int(rows * 0.6), int(columns * 0.6)

    def weights(size):
        rise = np.sin(np.linspace(0, np.pi / 2, size // 4, dtype=np.float32))
        return np.concatenate([rise, np.ones(size - 2 * len(rise), np.float32), rise[::-1]])

    weight = np.outer(weights(down), weights(across))[:, :, None]
    water = np.zeros((height + down, width + across, 3), np.float32)
    squares = np.zeros((height + down, width + across, 1), np.float32)
    for y in range(0, height, down - down // 4):
        for x in range(0, width, across - across // 4):
            top, left = random.integers(0, rows - down + 1), random.integers(0, columns - across + 1)
            water[y : y + down, x : x + across] += waves[top : top + down, left : left + across] * weight
            squares[y : y + down, x : x + across] += weight**2
    water = water[:height, :width] / np.sqrt(np.maximum(squares[:height, :width], 1e-6))
    # The frame is lit as the piece is, from its top to its bottom.
    light = cv2.resize(shading.mean(1, keepdims=True), (1, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(water + light.reshape(height, 1, 3), 0, 255).astype(np.uint8)


def survey_frames(args, data, folder):
    """Frames of open water at 12 megapixels, of which every hundredth has a whale composed into it; drawn once and kept.
    The water is that of the pieces of real frames in which people saw no whale."""
    import cv2
    import numpy as np

    whales = composed_frames(args.trainer, data, folder / "whales", args.survey // 100, args.width)
    if not whales:
        return [], []
    water = folder / "water"
    if not (water / "complete").exists():
        print(f"drawing {args.survey} frames of real water into {water}", flush=True)
        water.mkdir(parents=True, exist_ok=True)
        with open(ROOT / "training/data/open_water.csv", newline="") as file:
            pieces = list(csv.DictReader(file))
        random = np.random.default_rng(1)
        for number in range(args.survey - len(whales)):
            piece = pieces[number % len(pieces)]
            x, y, w, h = (int(piece[k]) for k in ("x", "y", "width", "height"))
            image = cv2.imread(str(data / "frames" / piece["image"]))[y : y + h, x : x + w]
            image = open_water(image, args.width, args.height, random)
            cv2.imwrite(str(water / f"{number:04}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        (water / "complete").touch()
    return whales, sorted(water.glob("*.jpg"))


READ_AT_AN_EIGHTH = """
import sys
from concurrent.futures import ThreadPoolExecutor
import cv2
cv2.setNumThreads(1)
with ThreadPoolExecutor(int(sys.argv[1])) as pool:
    for image in pool.map(lambda p: cv2.imread(p, cv2.IMREAD_REDUCED_COLOR_8), open(sys.argv[2]).read().split()):
        assert image is not None
"""


def survey(args, bundle, library, data):
    """What a box does all day: water, and now and then a whale."""
    folder = ROOT / "target" / "bench" / f"survey-{args.width}x{args.height}-{args.survey}"
    whales, water = survey_frames(args, data, folder)
    if not whales:
        return []
    step = len(water) // len(whales)
    frames = [f for i, whale in enumerate(whales) for f in [whale, *water[i * step : (i + 1) * step]]]
    frames += water[len(whales) * step :]
    listed = folder / "frames.txt"
    listed.write_text("\n".join(map(str, frames)))
    print(f"survey: {len(frames)} frames, {len(whales)} with a whale", flush=True)
    flown = folder / "flown"
    flown.mkdir(exist_ok=True)
    for old in flown.iterdir():
        old.unlink()
    for number, frame in enumerate(frames):
        (flown / f"{number:04}.jpg").symlink_to(frame)
    ours = sides(args, bundle, library)[0].command
    peer = [sys.executable, PEER, "--bundle", bundle, "--threads", 1, "--workers", args.threads, "--reduced", "--list"]
    commands = {
        "`callosity identify`": ours + [flown],
        f"Python, reduced where it can, {args.threads} frames at a time": peer + [listed],
        "libjpeg-turbo in OpenCV, reading at an eighth": [sys.executable, "-c", READ_AT_AN_EIGHTH, args.threads, listed],
    }
    seconds = {name: [] for name in commands}
    for _ in range(args.rounds):
        for name, command in commands.items():
            seconds[name].append(run(command)[1])
    seconds = {name: statistics.median(of) for name, of in seconds.items()}
    mine, theirs, read = seconds.values()
    side = {True: Side("", ours), False: Side("", ours)}
    empty = water[: args.most]
    for _ in range(args.rounds):
        side[True].measure(whales)
        side[False].measure(empty)
    times = side[False].rate(len(empty)) / side[True].rate(len(whales))
    text = [
        "## Survey",
        "",
        f"{len(frames)} JPEGs of {args.width} × {args.height}, real water of which {len(whales)} have a whale; bundle "
        f"`{bundle.name}`, {args.threads} threads, starting included.",
        "",
        "| | seconds | frames/s | times ours |",
        "|---|---|---|---|",
    ]
    for name, spent in seconds.items():
        text.append(f"| {name} | {spent:.1f} | {len(frames) / spent:.1f} | {spent / mine:.2f} |")
    return text + [
        "",
        f"So {theirs / mine:.2f} times the Python peer's frames a second, in {mine / read:.2f} times the time that reading "
        f"takes alone; an empty frame is {times:.1f} times as fast as one with a whale.",
        "",
    ]


def training(args):
    text = ["## Training", ""]
    text += ["| recipe | `callosity-train`, images/s | PyTorch, images/s | ratio |", "|---|---|---|---|"]
    peer = ROOT / "training" / "benches" / "pytorch_peer.py"
    for recipe in args.recipes:
        print(f"training: {recipe}", flush=True)
        declared, _, _ = run([args.trainer, "bench", recipe, "--describe"])
        ours, theirs = [], []
        for _ in range(args.rounds):
            ours.append(float(run([args.trainer, "bench", recipe, "--steps", args.steps])[0]))
            command = [args.torch_python, peer, "--steps", args.steps]
            theirs.append(float(run(command, stdin=declared)[0]))
        a, b = statistics.median(ours), statistics.median(theirs)
        text.append(f"| `{Path(recipe).name}` | {a:.1f} | {b:.1f} | {a / b:.2f} |")
    return text + [""]


def machine():
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    flags = set(Path("/proc/cpuinfo").read_text().split())
    bf16 = [name for flag, name in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX-512 BF16")) if flag in flags]
    return f"{model} ({' and '.join(bf16) or 'no bfloat16'}), {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the start"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/callosity")
    parser.add_argument("--trainer", type=Path, default=ROOT / "target/release/callosity-train")
    parser.add_argument("--stages", type=Path, help="the built benchmark `stages` [default: cargo bench]")
    parser.add_argument("--torch-python", type=Path, help="Python that has PyTorch; without it no training")
    parser.add_argument("--recipes", nargs="*", type=Path, default=[])
    parser.add_argument("--bundle", type=Path, default=ROOT / "models/virtual-survey")
    parser.add_argument("--real-bundle", type=Path, default=ROOT / "models/right-whales")
    parser.add_argument("--photographs", type=Path, help="folder of frames instead of virtual ones")
    parser.add_argument("--frames", type=int, default=64, help="virtual frames that are drawn")
    parser.add_argument("--most", type=int, default=16, help="most frames of a kind that are looked at")
    parser.add_argument("--width", type=int, default=4256)
    parser.add_argument("--height", type=int, default=2832)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--survey", type=int, default=1000, help="frames of a survey; 0 leaves it out")
    parser.add_argument("--only-survey", action="store_true", help="measure the survey alone and print it")
    parser.add_argument("--steps", type=int, default=20, help="training steps that are timed")
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md")
    args = parser.parse_args()

    import cv2
    import numpy
    import onnxruntime

    library = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))
    text = [
        "# Measured",
        "",
        "Written by `make bench`. Both sides take turns in one run; medians.",
        "",
        f"- {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}, {machine()}",
        f"- {run([args.program, '--version'])[0].strip()}; Python {platform.python_version()}, "
        f"onnxruntime {onnxruntime.__version__}, OpenCV {cv2.__version__}, NumPy {numpy.__version__}",
        "",
    ]
    data = Path(os.environ.get("CALLOSITY_DATA", ROOT / "../shared/data/right_whales"))
    if args.only_survey:
        print("\n".join(survey(args, args.real_bundle, library, data)))
        return
    if args.photographs:
        frames = sorted(p for p in args.photographs.iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
        text += identification(args, "Photographs", args.bundle, library, frames[: args.most], [])
    elif (args.bundle / "manifest.json").exists():
        folder = ROOT / "target" / "bench" / f"virtual-{args.width}x{args.height}-{args.frames}"
        whale, empty = virtual_frames(args.program, folder, args.frames, args.width, args.height)
        whale, empty = whale[: args.most], empty[: args.most]
        text += identification(args, "Virtual survey", args.bundle, library, whale, empty)
    else:
        print(f"no bundle in {args.bundle}: the virtual survey is left out")
    if (data / "frames.csv").exists() and (args.real_bundle / "manifest.json").exists():
        # A frame without landmarks in the table has not been marked; it may well show a whale.
        whale, _ = sorted_by_heads(data / "frames.csv", data / "frames")
        whale = whale[: args.most]
        text += identification(args, "Real frames", args.real_bundle, library, whale, [])
    else:
        print(f"real frames are left out: none in {data}, or no bundle in {args.real_bundle}")
    folder = ROOT / "target" / "bench" / f"composed-{args.width}-{args.most}"
    whale = composed_frames(args.trainer, data, folder, args.most, args.width)
    if whale and (args.real_bundle / "manifest.json").exists():
        title = "Frames composed of real heads and water"
        text += identification(args, title, args.real_bundle, library, whale, [])
    if args.survey and (args.real_bundle / "manifest.json").exists():
        text += survey(args, args.real_bundle, library, data)
    if args.torch_python and args.recipes:
        text += training(args)
    args.out.write_text("\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    main()
