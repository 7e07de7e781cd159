"""Stands in for `python -m xception train …`: leaves a run folder in no time.

Two epochs of ten steps. The score is decided by the configuration alone: a point for the seed, ten
for a network with the ELU. A file `die` beside the photos makes each
training stop once, half way, as a killed one does; a file `split` names what it is measured on.
"""

import json
import sys
from pathlib import Path

import yaml

ROWS = "epoch,step,seconds,images_per_second,val_top1\n1,10,1.5,320,0.3\n2,20,3.0,160,0.4\n"


def main() -> int:
    arguments = sys.argv[sys.argv.index("train") + 1 :]
    photos = Path(arguments[0])
    run = Path(arguments[arguments.index("--out") + 1])
    run.mkdir(exist_ok=True)
    if "--resume" not in arguments:
        config = Path(arguments[arguments.index("--config") + 1])
        (run / "config.yaml").write_text(config.read_text())
    settings = yaml.safe_load((run / "config.yaml").read_text())
    half, whole = ROWS.split("2,20")[0], ROWS
    if (photos.parent / "die").exists() and not (run / "metrics.csv").exists():
        (run / "metrics.csv").write_text(half)
        print("the lights went out", file=sys.stderr)
        return 9
    (run / "metrics.csv").write_text(whole)
    split = photos.parent / "split"
    better = settings["model_options"].get("activation") == "elu"
    top1 = 0.5 + 0.01 * settings["seed"] + 0.1 * better
    names = ("python", "torch", "system", "processor", "threads")
    environment = {**{name: f"the {name}" for name in names}, "device": "cpu"}
    report = {"cost": {"parameters": 1000, "macs": 5000}, "environment": environment}
    (run / "report.json").write_text(json.dumps(report))
    named = split.read_text() if split.exists() else "test"
    print(json.dumps({"split": named, "metrics": {"samples": 100, "top1": top1}}))
    return 0


sys.exit(main())
