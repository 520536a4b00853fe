"""Write what every launcher prints with --dry-run: `python -m tests.golden.make_launch`. Read the difference."""

from tests.launch import cases

if __name__ == "__main__":
    cases.GOLDEN.mkdir(exist_ok=True)
    for name in cases.CASES:
        (cases.GOLDEN / f"{name}.txt").write_text(cases.printed(name))
