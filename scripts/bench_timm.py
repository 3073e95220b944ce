#!/usr/bin/env python3
"""Measures `dynvit bench` beside timm's dense model of the same size on the same device.

    scripts/bench_timm.py [--model deit_small] [--batch-size 1,16] [--precision float32] [--device cpu] [--compile]
                          [--keep-ratio 1.0,0.7 | --dynvit 'ARGUMENTS' ...] [--tome FOLDER --tome-r 13]
                          [--config FILE --timm NAME --image-size 518 --classes 0]
                          [--rounds 5] [--seconds 2] [--program FILE] [--json FILE]

Rounds alternate: timm eager, timm compiled (with --compile: torch.compile, on a GPU with CUDA graphs at batch 1), both again
with ToMe's published code merging r tokens a block (with --tome: the folder that holds its package tome), then the program
with all keep ratios, or once for each --dynvit with those arguments of `dynvit bench`. A round's figure is the median call; what is printed is the median over the rounds, and the
ratio to timm of the same round. Both sides have the same number of threads, random pictures already on the device and
random weights. Don't bind threads to processors here (OMP_PROC_BIND): the program would inherit the one of Python's main
thread. Needs torch and timm, which dynvit does not.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

TIMM_NAMES = {"deit_tiny": "deit_tiny_patch16_224", "deit_small": "deit_small_patch16_224",
              "deit_base": "deit_base_patch16_224", "deit_base_384": "deit_base_patch16_384"}


class Timm:
    """timm's model, eager or compiled."""

    def __init__(self, arguments, batch, compiled, merged=0):
        import timm
        import torch

        self.torch, self.device = torch, arguments.device
        dtype = getattr(torch, arguments.precision)
        name, options = TIMM_NAMES.get(arguments.model), {}
        if arguments.config:
            name, options = arguments.timm, {"img_size": arguments.image_size, "num_classes": arguments.classes}
        model = timm.create_model(name, **options).eval().to(arguments.device, dtype)
        size = model.patch_embed.img_size
        self.images = torch.randn(batch, 3, *size, device=arguments.device, dtype=dtype)
        on_gpu = arguments.device != "cpu"
        if merged:
            import tome

            tome.patch.timm(model)
            model.r = merged
        if compiled:
            model = torch.compile(model, mode="reduce-overhead" if on_gpu and batch == 1 else "default")
        self.model = model
        # As dynvit bench does it: on a GPU several calls in a row, which are waited for together.
        self.calls = 1
        seconds = min(self.time_call() for _ in range(5))
        if on_gpu:
            self.calls = max(1, min(100, round(0.02 / seconds)))

    def time_call(self):
        start = time.perf_counter()
        with self.torch.inference_mode():
            for _ in range(self.calls):
                self.model(self.images)
        if self.device != "cpu":
            self.torch.cuda.synchronize()
        return (time.perf_counter() - start) / self.calls

    def measure(self, seconds):
        """The median call's seconds."""
        end, times = time.perf_counter() + seconds, []
        while time.perf_counter() < end or len(times) < 5:
            times.append(self.time_call())
        return statistics.median(times)


def measure_dynvit(arguments, batch):
    """Seconds a call for each row, by its name."""
    seconds = {}
    for extra in arguments.dynvit or [f"--keep-ratio {arguments.keep_ratio}"]:
        seconds |= measure_rows(arguments, batch, extra)
    return seconds


def measure_rows(arguments, batch, extra):
    with tempfile.TemporaryDirectory() as temporary:
        report = pathlib.Path(temporary) / "report.json"
        which = ["--config", arguments.config] if arguments.config else ["--model", arguments.model]
        command = [arguments.program, "bench", *which, "--batch-size", str(batch), "--device", arguments.device,
                   "--precision", arguments.precision, *extra.split(),
                   "--seconds", str(arguments.seconds), "--json", report]
        if arguments.device == "cpu":
            command += ["--threads", str(arguments.threads)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"bench_timm: {arguments.program}: {done.stderr.strip()}")
        rows = json.loads(report.read_text())["rows"]
    what = f" {extra}" if arguments.dynvit else ""
    return {f"dynvit {row['policy']} {row['keep_ratio']:.2f}{what}": batch / row["images_per_second"]["median"] for row in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deit_small", choices=TIMM_NAMES)
    parser.add_argument("--config", help="of another model: the program's YAML file, beside --timm and --image-size")
    parser.add_argument("--timm", help="timm's name of that model")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--classes", type=int, default=0)
    parser.add_argument("--batch-size", default="1,16")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--keep-ratio", default="1.0,0.7")
    parser.add_argument("--dynvit", action="append", help="in place of --keep-ratio; may be repeated")
    parser.add_argument("--tome", help="folder that holds the package tome of github.com/facebookresearch/ToMe")
    parser.add_argument("--tome-r", default="13", help="tokens that it merges in each block; several: 8,13")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="a row and round")
    parser.add_argument("--program", default="build/cpu/tools/dynvit/dynvit")
    parser.add_argument("--json", help="write the figures to this file too")
    arguments = parser.parse_args()
    try:
        import timm
        import torch
    except ImportError as error:
        sys.exit(f"bench_timm: {error.name or error} is missing; pip install torch timm")
    if arguments.tome:
        sys.path.insert(0, arguments.tome)
    arguments.threads = torch.get_num_threads()
    where = f"{arguments.threads} threads" if arguments.device == "cpu" else torch.cuda.get_device_name(arguments.device)
    print(f"{arguments.timm or arguments.model}, {arguments.precision}, {where}; timm {timm.__version__}, torch {torch.__version__}")
    print(f"{'batch':>5}  {'':24} {'ms a call':>10} {'images/s':>10} {'x timm eager':>13}   rounds")
    report = []
    for batch in map(int, arguments.batch_size.split(",")):
        rivals = {"timm eager": Timm(arguments, batch, compiled=False)}
        if arguments.compile:
            rivals["timm compiled"] = Timm(arguments, batch, compiled=True)
        for r in map(int, arguments.tome_r.split(",")) if arguments.tome else ():
            rivals[f"ToMe r {r} eager"] = Timm(arguments, batch, compiled=False, merged=r)
            if arguments.compile:
                rivals[f"ToMe r {r} compiled"] = Timm(arguments, batch, compiled=True, merged=r)
        rounds = []
        for _ in range(arguments.rounds):
            figures = {name: rival.measure(arguments.seconds) for name, rival in rivals.items()}
            rounds.append(figures | measure_dynvit(arguments, batch))
        for name in rounds[0]:
            seconds = statistics.median(r[name] for r in rounds)
            ratios = [r["timm eager"] / r[name] for r in rounds]
            each = " ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"{batch:5}  {name:24} {1e3 * seconds:10.2f} {batch / seconds:10.1f} {statistics.median(ratios):13.2f}"
                  f"   {each}", flush=True)
            report.append({"batch": batch, "name": name, "seconds": seconds, "ratios": ratios})
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
