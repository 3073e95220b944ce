#!/usr/bin/env python3
"""Measures dynvit's training loader beside torchvision's on the same pictures, each on one core.

    scripts/bench_loader.py FOLDER [--program build/cpu/tools/dynvit/dynvit] [--rounds 5] [--images 1280] [--json FILE]

FOLDER holds a folder of pictures a class. Both sides crop at random to 224 x 224 (bicubic), mirror, and make batches of
64 uint8 tensors: `dynvit bench loader` with one worker, and torchvision's ImageFolder on Pillow in a DataLoader without
worker processes. Rounds alternate, medians are compared. Needs torch, torchvision and pillow, which dynvit does not.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

BATCH = 64
SIZE = 224


def torchvision_loader(folder):
    """Batches without end, and what they are made with."""
    try:
        import PIL
        import torch
        import torchvision
    except ImportError as error:
        sys.exit(f"bench_loader: {error.name or error} is missing; pip install torch torchvision pillow")
    from PIL import features
    from torchvision import transforms

    torch.set_num_threads(1)
    augment = transforms.Compose([
        transforms.RandomResizedCrop(SIZE, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.RandomHorizontalFlip(),
        transforms.PILToTensor(),
    ])
    dataset = torchvision.datasets.ImageFolder(folder, augment)
    sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=1 << 30)
    loader = torch.utils.data.DataLoader(dataset, batch_size=BATCH, sampler=sampler)
    versions = (f"torchvision {torchvision.__version__}, torch {torch.__version__}, Pillow {PIL.__version__}, "
                f"libjpeg-turbo {features.version('libjpeg_turbo')}")
    return loader, versions


def measure_torchvision(loader, images):
    """Pictures a second and a core's second; the first batch does not count."""
    batches = iter(loader)
    next(batches)
    count, start, start_core = 0, time.perf_counter(), time.process_time()
    while count < images:
        count += len(next(batches)[1])
    return count / (time.perf_counter() - start), count / (time.process_time() - start_core)


def measure_dynvit(program, folder, images):
    with tempfile.TemporaryDirectory() as temporary:
        report = pathlib.Path(temporary) / "report.json"
        command = [program, "bench", "loader", "--data", folder, "--workers", "1", "--image-size", str(SIZE),
                   "--batch-size", str(BATCH), "--images", str(images), "--json", report]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"bench_loader: {program}: {done.stderr.strip()}")
        result = json.loads(report.read_text())["results"][0]
    return result["images_per_second"], result["images_per_core_second"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--program", default="build/cpu/tools/dynvit/dynvit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1280, help="pictures a round")
    parser.add_argument("--json", help="write the figures to this file too")
    arguments = parser.parse_args()

    loader, versions = torchvision_loader(arguments.folder)
    print(f"{arguments.folder}: {len(loader.dataset)} pictures; {versions}")
    # A warm-up round each brings the files into memory.
    measure_torchvision(loader, len(loader.dataset))
    measure_dynvit(arguments.program, arguments.folder, arguments.images)
    rounds = {"torchvision": [], "dynvit": []}
    for _ in range(arguments.rounds):
        rounds["torchvision"].append(measure_torchvision(loader, arguments.images))
        rounds["dynvit"].append(measure_dynvit(arguments.program, arguments.folder, arguments.images))

    print(f"{'':12} {'pictures/s':>11} {'pictures/s a core':>18}   rounds (a core)")
    medians = {}
    for name, figures in rounds.items():
        medians[name] = [statistics.median(column) for column in zip(*figures)]
        each = " ".join(f"{core:.0f}" for _, core in figures)
        print(f"{name:12} {medians[name][0]:11.1f} {medians[name][1]:18.1f}   {each}")
    ratio = [ours / theirs for ours, theirs in zip(medians["dynvit"], medians["torchvision"])]
    print(f"{'ratio':12} {ratio[0]:11.2f} {ratio[1]:18.2f}")
    if arguments.json:
        report = {"folder": arguments.folder, "versions": versions, "images": arguments.images, "rounds": rounds,
                  "medians": medians, "ratio_per_second": ratio[0], "ratio_per_core_second": ratio[1]}
        pathlib.Path(arguments.json).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
