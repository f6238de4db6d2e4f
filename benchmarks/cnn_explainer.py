"""The explainer's page: one forward pass of Tiny VGG in its own JavaScript, under Node, and how much the page weighs.

TensorFlow.js is compared where Node finds it (``npm install @tensorflow/tfjs`` and ``NODE_PATH``).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.table import Row, absent, compare
from reprise.explain import export_web
from reprise.nn import TinyVGG

OURS = """
  const html = require("fs").readFileSync(process.argv[1], "utf8");
  (0, eval)(html.match(/<script>\\n([\\s\\S]*?)<\\/script>/)[1]);
  const network = cnnExplainer.readNetwork(JSON.parse(html.match(/id="network">([\\s\\S]*?)<\\/script>/)[1]));
  const pixels = cnnExplainer.normalise(network, network.samples[0].pixels);
  const run = async () => Array.from(cnnExplainer.forward(network, pixels).at(-1).values);
"""
TENSORFLOW = (
    OURS.rpartition("const run")[0]
    + """
  const tf = require("@tensorflow/tfjs");
  const layers = network.layers.map((layer) => {
    const shape = [layer.out, layer.in, layer.kernel, layer.kernel];
    if (layer.kind === "conv") {
      const [kernel, bias] = [tf.tensor(layer.weight, shape).transpose([2, 3, 1, 0]), tf.tensor1d(layer.bias)];
      return (x) => tf.add(tf.conv2d(x, kernel, 1, "valid"), bias);
    }
    if (layer.kind === "relu") return tf.relu;
    if (layer.kind === "pool") return (x) => tf.maxPool(x, 2, 2, "valid");
    if (layer.kind === "flatten") return (x) => x.reshape([1, -1]);
    const [kernel, bias] = [tf.tensor(layer.weight, [layer.out, layer.in]).transpose(), tf.tensor1d(layer.bias)];
    return (x) => tf.add(tf.matMul(x, kernel), bias);
  });
  const input = tf.tensor(pixels, [1, 3, 64, 64]).transpose([0, 2, 3, 1]);
  const run = async () => Array.from(tf.tidy(() => layers.reduce((x, layer) => layer(x), input)).dataSync());
"""
)
LOOP = """
  const lines = require("readline").createInterface({ input: process.stdin });
  lines.on("line", async () => console.log(JSON.stringify(await run())));
"""


def rows() -> Iterator[Row]:
    """Latency beside PyTorch, its best layout of memory, and TensorFlow.js without a graphics card; then bytes."""
    work = "Tiny VGG, forward pass of one picture 3x64x64 in JavaScript"
    model = TinyVGG().eval()
    picture = torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        page = export_web(model, folder, [str(label) for label in range(10)], picture.expand(10, -1, -1, -1))
        yield Row("page of Tiny VGG with ten pictures", "a megabyte", note=f"{page.stat().st_size:,} bytes")
        if shutil.which("node") is None:
            yield from absent(work, "PyTorch", "Node is not installed")
            return
        node = _Node(OURS, page)
        x = picture / 255
        last = x.to(memory_format=torch.channels_last)
        peers = {"PyTorch, one thread": _call(model, x), "PyTorch, one thread, channels-last": _call(model, last)}
        yield from compare(work, node, peers, tolerance=1e-4)
        found = subprocess.run(["node", "-e", 'require.resolve("@tensorflow/tfjs")'], capture_output=True)
        if found.returncode:
            yield from absent(work, "TensorFlow.js", "TensorFlow.js is not installed")
        else:
            tensorflow = _Node(TENSORFLOW, page)
            yield from compare(work, node, {"TensorFlow.js, plain CPU": tensorflow}, tolerance=1e-4)
            tensorflow.close()
        node.close()


class _Node:
    """A program under Node that runs once per line it is sent, and answers with logits."""

    def __init__(self, program: str, page: Path) -> None:
        command = ["node", "-e", program + LOOP, str(page)]
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

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def _call(model: TinyVGG, x: Tensor) -> Callable[[], list[float]]:
    def work() -> list[float]:
        with torch.inference_mode():
            return [float(value) for value in model(x)[0]]

    return work
