"""When to compute in bfloat16."""

import torch

from xception.errors import UserError


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """bf16 on CUDA that has it; on a CPU only when asked for and the CPU computes in it.

    Raises:
        UserError: bf16 was asked for on a device that would be slower with it.
    """
    if device.type == "cuda":
        capable = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capable = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    if precision == "bfloat16" and not capable:
        raise UserError(
            "bfloat16 has no arithmetic of its own here and would be slower: use float32"
        )
    chosen = precision == "bfloat16" or (precision == "auto" and device.type == "cuda" and capable)
    return torch.autocast(device.type, torch.bfloat16, enabled=chosen)
