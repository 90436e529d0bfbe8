"""Tells what the machine is, as one row; fails if it has no such device."""

import os
import subprocess
import sys
from importlib.metadata import version

import torch
from courses import NETWORKS, is_stored
from race import DATA_SETS
from rows import DEVICE, tell_row


def driver() -> str:
    """Returns the version of NVIDIA's driver, or `unknown`."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.check_output(query, text=True, timeout=20).split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


def gpu() -> dict[str, str]:
    """Returns what the first GPU is, after a product on it; a broken one raises."""
    torch.ones(8, 8, device="cuda").mm(torch.ones(8, 8, device="cuda")).sum().item()
    found = torch.cuda.get_device_properties(0)
    return {
        "GPU": f"{found.name}, {found.total_memory / 2**30:.0f} GiB, capability "
        f"{found.major}.{found.minor}",
        "driver": driver(),
        "CUDA": f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}",
    }


def main() -> None:
    if DEVICE == "cuda" and not torch.cuda.is_available():
        sys.exit("error: there is no CUDA GPU; --device cpu --dry tries the script without one")
    variables = [name for name in os.environ if name.endswith("_ALLOC_CONF")]
    data = {DATA_SETS[network][0]: is_stored(network) for network in NETWORKS}
    cells = {
        **(gpu() if DEVICE == "cuda" else {"device": "CPU"}),
        "cores": len(os.sched_getaffinity(0)),
        "Python": ".".join(map(str, sys.version_info[:3])),
        **{name: version(name) for name in ("torch", "lightning")},
        "float32 products": torch.get_float32_matmul_precision() + " (TF32 unless highest)",
        "TF32 in convolutions": torch.backends.cudnn.allow_tf32,
        **{name: os.environ[name] for name in variables},
        "images": ", ".join(
            f"{name} {'itself' if here else 'as noise of its shape'}" for name, here in data.items()
        ),
    }
    tell_row("", cells)


if __name__ == "__main__":
    main()
