"""What a report says about the machine that it was made on."""

import platform
from pathlib import Path

import torch


def environment(device: torch.device) -> dict[str, str]:
    """Python, torch, system, processor, threads and device by their names."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor(),
        "threads": str(torch.get_num_threads()),
        "device": name,
    }


def processor() -> str:
    """Its name where the system tells it, else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, named), platform.processor() or platform.machine())
