"""The explainer's page: one forward pass of Tiny VGG in its own script, under Node, and how much the page weighs.

TensorFlow.js is compared where Node finds it (``npm install @tensorflow/tfjs @tensorflow/tfjs-backend-wasm``, and their
folder in ``NODE_PATH``).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.table import Row, absent, compare
from reprise.explain import export_web
from reprise.nn import TinyVGG

WORK, PACKAGES = "Tiny VGG, forward pass of one picture on the page", {"cpu": "tfjs", "wasm": "tfjs-backend-wasm"}
PAGE = """
  const html = require("fs").readFileSync(process.argv[1], "utf8");
  (0, eval)(html.match(/<script>\\n([\\s\\S]*?)<\\/script>/)[1]);
  const network = cnnExplainer.readNetwork(JSON.parse(html.match(/id="network">([\\s\\S]*?)<\\/script>/)[1]));
  const pixels = cnnExplainer.normalise(network, network.samples[0].pixels);
"""
OURS = PAGE + "const ready = Promise.resolve(() => cnnExplainer.forward(network, pixels).at(-1).values);"
TENSORFLOW = (
    PAGE
    + """
  const tf = require("@tensorflow/tfjs");
  if (process.argv[2] === "wasm") require("@tensorflow/tfjs-backend-wasm");
  const ready = tf.setBackend(process.argv[2]).then(() => {
    const layers = network.layers.map((layer) => {
      const shape = [layer.out, layer.in, layer.kernel, layer.kernel];
      if (layer.kind === "conv") {
        const [filter, bias] = [tf.tensor(layer.weight, shape).transpose([2, 3, 1, 0]), tf.tensor1d(layer.bias)];
        return (x) => tf.fused.conv2d({ x, filter, strides: 1, pad: "valid", bias, activation: "relu" });
      }
      if (layer.kind === "relu") return (x) => x; // done with the convolution
      if (layer.kind === "pool") return (x) => tf.maxPool(x, 2, 2, "valid");
      if (layer.kind === "flatten") return (x) => x.reshape([1, -1]);
      const [b, bias] = [tf.tensor(layer.weight, [layer.out, layer.in]).transpose(), tf.tensor1d(layer.bias)];
      return (a) => tf.fused.matMul({ a, b, bias });
    });
    const input = tf.tensor(pixels, [1, 3, network.size, network.size]).transpose([0, 2, 3, 1]);
    return () => tf.tidy(() => layers.reduce((x, layer) => layer(x), input).dataSync());
  });
"""
)
LOOP = """
  ready.then((run) => {
    const lines = require("readline").createInterface({ input: process.stdin });
    lines.on("line", () => console.log(JSON.stringify(Array.from(run()))));
  });
"""


def rows() -> Iterator[Row]:
    """Latency for three sizes of picture beside TensorFlow.js without a graphics card, and PyTorch; then bytes."""
    for side in (32, 64, 128):
        model, size = TinyVGG(side).eval(), f"3x{side}x{side}"
        picture = torch.randint(256, (1, 3, side, side), dtype=torch.uint8)
        with tempfile.TemporaryDirectory() as folder, ExitStack() as programs:
            page = export_web(model, folder, [str(label) for label in range(10)], picture.expand(10, -1, -1, -1))
            if side == 64:  # as it is published
                yield Row("page of Tiny VGG with ten pictures", "a megabyte", note=f"{page.stat().st_size:,} bytes")
            if shutil.which("node") is None:
                yield from absent(WORK, "TensorFlow.js", "Node is not installed", size)
                continue
            peers = {}
            for backend, package in PACKAGES.items():
                found = subprocess.run(["node", "-e", f'require.resolve("@tensorflow/{package}")'], capture_output=True)
                if found.returncode:
                    yield from absent(WORK, f"TensorFlow.js, {backend}", f"{package} is not installed", size)
                else:
                    peers[backend] = programs.enter_context(_Node(TENSORFLOW, page, backend))
            node = programs.enter_context(_Node(OURS, page))
            x = (picture / 255).to(memory_format=torch.channels_last)
            yield from compare(
                WORK,
                node,
                {f"TensorFlow.js, {backend}": peer for backend, peer in peers.items() if backend == "wasm"},
                defaults={f"TensorFlow.js, {backend}": peer for backend, peer in peers.items() if backend == "cpu"},
                limits={"PyTorch's native code, channels-last": _call(model, x)},
                size=size,
                tolerance=1e-4,
            )


class _Node:
    """A program under Node that runs once per line it is sent, and answers with logits."""

    def __init__(self, program: str, page: Path, *arguments: str) -> None:
        command = ["node", "-e", program + LOOP, str(page), *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def __call__(self) -> list[float]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        while not line.startswith("["):  # what libraries have to say about themselves
            if not line:
                raise RuntimeError("Node ended; run the program by hand to see why")
            line = self.process.stdout.readline()
        return [float(value) for value in json.loads(line)]

    def __enter__(self) -> _Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


def _call(model: TinyVGG, x: Tensor) -> Callable[[], list[float]]:
    def work() -> list[float]:
        with torch.inference_mode():
            return [float(value) for value in model(x)[0]]

    return work
