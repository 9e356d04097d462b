"""All programs behind one command: `modsync train --problem=burgers`, `modsync sweep --help`."""

import importlib
import sys

PROGRAMS = {
    "train": "trains a network on a problem",
    "diagnose": "says which method a problem needs, and why",
    "evaluate": "evaluates a trained network on a grid",
    "export": "writes a trained network as plain NumPy and as a program of JAX",
    "sweep": "trains many networks in one program",
    "compare": "compares methods on a problem",
    "reproduce": "makes a table or figure of the ModSync paper",
    "plot": "draws an error of a sweep against an axis of its grid",
}


def main() -> None:
    """Runs the program named by the first argument."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in PROGRAMS:
        lines = [f"  modsync {name:10}{what}" for name, what in PROGRAMS.items()]
        print("\n".join(["Programs, each with --help:", *lines]), file=sys.stderr)
        sys.exit(0 if name in ("", "--help", "-h", "help") else 2)
    program = importlib.import_module(f".{name}", __package__)
    sys.argv = [f"modsync {name}", *sys.argv[2:]]
    program._program.run(program.main)


if __name__ == "__main__":
    main()
