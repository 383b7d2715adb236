"""Reads ONNX files back with the reference implementation's checker and, where onnxruntime is
importable, runs each on `<file>.input` (raw little-endian float32) and writes `<file>.<output>`.

Usage: check_onnx.py FILE BATCH [FILE BATCH ...]
Prints "checked" or, after it ran the file too, "checked and run" for each.
"""

import sys

import numpy
import onnx

try:
    import onnxruntime
except ImportError:
    onnxruntime = None


def run(path, batch):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = path + ".optimised"
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    values = numpy.fromfile(path + ".input", dtype="<f4").reshape(batch, *entry.shape[1:])
    names = [output.name for output in session.get_outputs()]
    for name, result in zip(names, session.run(names, {entry.name: values})):
        result.astype("<f4").tofile(f"{path}.{name}")
    left = [n.name for n in onnx.load(path + ".optimised").graph.node if n.op_type == "Cast"]
    if left:
        sys.exit(f"{path}: the runtime would widen weights at each run: {left}")


for path, batch in zip(sys.argv[1::2], sys.argv[2::2]):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    axes = model.graph.input[0].type.tensor_type.shape.dim
    assert axes[0].dim_param == "batch", f"{path}: the batch axis is fixed"
    if onnxruntime is None:
        print("checked")
    else:
        run(path, int(batch))
        print("checked and run")
