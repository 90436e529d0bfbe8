"""Questions to SLURM by its own commands."""

import os
import re
import subprocess


def has_accounting() -> bool:
    """True if SLURM keeps accounts of ended jobs; runs `sacct`."""
    return run_slurm_command("sacct", "--noheader", "--allocations").returncode == 0


def is_queued(job_id: str) -> bool:
    """True if a SLURM job waits or runs, or if SLURM cannot be asked now; runs `squeue`."""
    found = run_slurm_command("squeue", "--noheader", "--jobs", job_id)
    if found.returncode:
        return "Invalid job id" not in found.stderr
    return bool(found.stdout.strip())


def requeue_if_preempted() -> bool:
    """Returns if SLURM has queued this process's job again; requeues one that is being preempted.

    SLURM does so at once, unless the partition grants a time of grace: then it only notes the time
    of preemption, and a job that ends earlier counts as ended. Runs `scontrol`.
    """
    job_id = os.environ.get("SLURM_JOB_ID", "")
    shown = run_slurm_command("scontrol", "show", "job", job_id).stdout
    restarts = re.search(r"\bRestarts=(\d+)", shown)
    if restarts and int(restarts[1]) > int(os.environ.get("SLURM_RESTART_COUNT", "0")):
        return True
    if "JobState=RUNNING" not in shown or not re.search(r"\bPreemptTime=\d", shown):
        return False  # as after scancel
    return run_slurm_command("scontrol", "requeue", job_id).returncode == 0


def run_slurm_command(*command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of SLURM, for at most a minute, and returns its outcome; never raises.

    A command that is missing or does not answer has exit code 1 and no output.
    """
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return subprocess.CompletedProcess(command, 1, "", "")
