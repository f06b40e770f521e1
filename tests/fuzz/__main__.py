"""Coverage-guided fuzzing with atheris, for a given time: python -m tests.fuzz [--seconds N] [TARGET …].

Inputs that cause a failure are written to fuzz-findings/; make a test of each.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

FINDINGS = Path("fuzz-findings")


def main() -> int:
    """Run each target in a separate process, because libFuzzer ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="default: all")
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    options = parser.parse_args()
    from tests.fuzz.targets import seeds

    names = options.targets or list(seeds())
    FINDINGS.mkdir(exist_ok=True)
    failed = []
    for name in names:
        print(f"== {name}, {options.seconds} s", flush=True)
        if subprocess.run([sys.executable, __file__, "--one", name, str(options.seconds)], check=False).returncode:
            failed.append(name)
    if not any(FINDINGS.iterdir()):
        FINDINGS.rmdir()
    print(f"found something in: {', '.join(failed)}; see {FINDINGS}/" if failed else "nothing found")
    return 1 if failed else 0


def fuzz_one(name: str, seconds: str) -> None:
    """Fuzz one target in this process; does not return."""
    import atheris

    with atheris.instrument_imports(include=["gomin_client", "zipfile", "numpy.lib.format"]):
        from tests.fuzz.targets import seeds

    target, valid = seeds()[name]
    with tempfile.TemporaryDirectory() as corpus:
        for index, content in enumerate(valid):
            Path(corpus, str(index)).write_bytes(content)
        arguments = [f"-max_total_time={seconds}", f"-artifact_prefix={FINDINGS}/{name}-", "-rss_limit_mb=8192",
                     "-timeout=30", "-print_final_stats=1", "-verbosity=0", corpus]  # fmt: skip
        atheris.Setup([sys.argv[0], *arguments], target)
        atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        sys.path.insert(0, str(Path(__file__).parents[2]))
        fuzz_one(*sys.argv[2:4])
    sys.exit(main())
