"""From a trained network to a bitstream in four calls; run it from the top of the repository."""

import xnorflow
from xnorflow.datasets import sample_digits

network = xnorflow.load("models/mnist_mini.onnx")
print(f"{network.name}: frames {network.input_shape}, {network.classes} classes")

digits = sample_digits()
prediction = xnorflow.predict(network, digits.x)
print(f"accuracy {(prediction.classes == digits.y).mean():.1%} on {len(digits)} digits")

simulation = xnorflow.simulate(network, digits.x[:4], digits.y[:4], board="icebreaker")
print(f"{simulation.mismatches} of {simulation.frames} frames differ in any bit")
print(f"{simulation.cycles_per_frame} cycles a frame, latency {simulation.latency_cycles} cycles")
print("hardware says", simulation.classes, "and the golden model", prediction.classes[:4])

design = xnorflow.build(
    network, "icebreaker", digits.x, digits.y, folding=simulation.plan.folding, frames=4
)
print(f"{design.fps:,.0f} frames/s at {design.clock_mhz:g} MHz")
print(f"load {design.bitstream}, read {design.page}")
